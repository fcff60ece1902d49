"""LoRA (Hu et al., 2021) on Linear layers and convolutions, by peft."""

from __future__ import annotations

from collections.abc import Mapping

from peft import LoraConfig, LoraModel
from peft.tuners.lora import Conv2d, Linear, LoraLayer
from torch import Tensor, nn

from extensions_built_in.networks.diff import add_diffs
from extensions_built_in.networks.dropout import drop_module, drop_ranks
from extensions_built_in.networks.inject import ADAPTER, inject
from toolkit.models.family import Trainable
from toolkit.networks.adapter import Adapter, Update
from toolkit.networks.keys.codec import Codec
from toolkit.networks.ranks import Ranks, Size
from toolkit.networks.resize import resize_rank
from toolkit.networks.targets import Rules, find_targets

A, B = "lora_A.weight", "lora_B.weight"


class LoraNetwork(Adapter):
    """Low-rank updates of the chosen layers of `module`: W x + (alpha / rank) B A x."""

    def __init__(
        self,
        module: nn.Module,
        trainable: Trainable,
        rank: int,
        alpha: float,
        rules: Rules = Rules(),
        ranks: Ranks | None = None,
        dropout: float = 0.0,
        rank_dropout: float = 0.0,
        module_dropout: float = 0.0,
        codec: Codec | None = None,
    ) -> None:
        ranks = ranks or Ranks(rank, alpha)
        targets = find_targets(module, trainable, rules, ranks)
        self.rank, self.alpha = rank, alpha
        self.layers = add_lora(module, targets.sizes, dropout)
        for layer in self.layers.values():
            drop_ranks(layer.lora_A[ADAPTER], rank_dropout)
            drop_module(layer.lora_B[ADAPTER], module_dropout)
        updates: dict[str, Update] = {name: LoraUpdate(layer) for name, layer in self.layers.items()}
        updates |= add_diffs(module, targets.full)
        super().__init__(lora_title("LoRA", ranks), trainable, targets, updates, lora_header("lora", ranks), codec)


class LoraUpdate:
    """peft's LoRA layer, as `toolkit.networks.adapter.Update`."""

    def __init__(self, layer: LoraLayer) -> None:
        self.layer = layer
        self.down: nn.Parameter = layer.lora_A[ADAPTER].weight
        self.up: nn.Parameter = layer.lora_B[ADAPTER].weight
        self.scale = float(layer.scaling[ADAPTER])
        self.params: Mapping[str, nn.Parameter] = {A: self.down, B: self.up}

    def act(self, strength: float) -> None:
        """Set the strength."""
        self.layer.scaling[ADAPTER] = self.scale * strength

    def written(self) -> dict[str, Tensor]:
        """A and B, each with the root of alpha / rank, so that neither leaves the range of a narrow type."""
        return {A: self.down * self.scale**0.5, B: self.up * self.scale**0.5}

    def fitted(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A and B of this rank and alpha."""
        if found.keys() != {A, B}:
            raise ValueError(f"has {', '.join(sorted(found))}, a LoRA has {A}, {B}")
        down, up = found[A], found[B]
        if down.shape[1:] != self.down.shape[1:] or len(up) != len(self.up) or up.shape[2:] != self.up.shape[2:]:
            raise ValueError("is of another size")
        root = self.scale**0.5
        if len(down) == len(self.down):
            return {A: down / root, B: up / root}
        fresh = self.down.detach().to("cpu").flatten(1) * root
        resized = resize_rank(down.flatten(1), up.flatten(1), fresh)
        return {A: resized[0].view(self.down.shape) / root, B: resized[1].view(self.up.shape) / root}


def add_lora(module: nn.Module, sizes: Mapping[str, Size], dropout: float, dora: bool = False) -> dict[str, LoraLayer]:
    """Wrap the layers that `sizes` names."""
    return inject(module, LoraModel, PlainLoraConfig, sizes, lora_dropout=dropout, use_dora=dora)


class PlainLoraConfig(LoraConfig):
    """Takes peft's plain layers whatever the weights are stored in: they add to the frozen layer's answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._register_custom_module({nn.Linear: Linear, nn.Conv2d: Conv2d})


def lora_title(name: str, ranks: Ranks) -> str:
    """What `describe` calls the network."""
    title = f"{name} rank {ranks.linear}, alpha {ranks.alpha:g}"
    if ranks.block_linear:
        title += ", other ranks per block"
    return title + (f" (convolutions {ranks.conv}, {ranks.conv_alpha or ranks.conv:g})" if ranks.conv else "")


def lora_header(kind: str, ranks: Ranks) -> dict[str, str]:
    """What a file's header says about rank and alpha."""
    header = {
        "network_type": kind,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(ranks.linear),
        "ss_network_alpha": str(ranks.alpha),
    }
    if ranks.conv:
        header |= {"conv_dim": str(ranks.conv), "conv_alpha": str(ranks.conv_alpha or float(ranks.conv))}
    return header
