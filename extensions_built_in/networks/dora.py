"""DoRA (Liu et al., 2024), by peft: a LoRA for the direction of each weight row, and a magnitude of its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from extensions_built_in.networks.diff import add_diffs
from extensions_built_in.networks.inject import ADAPTER
from extensions_built_in.networks.lora import LoraUpdate, add_lora, lora_header, lora_title
from toolkit.models.family import Trainable
from toolkit.models.wrapped import is_wrapper
from toolkit.networks.adapter import Adapter, Update
from toolkit.networks.keys.codec import Codec
from toolkit.networks.ranks import Ranks
from toolkit.networks.targets import Rules, find_targets

MAGNITUDE = "lora_magnitude_vector"


class DoraNetwork(Adapter):
    """The chosen layers with W' = m (W + s B A) / |W + s B A|, norms along each row, s = alpha / rank."""

    def __init__(
        self,
        module: nn.Module,
        trainable: Trainable,
        ranks: Ranks,
        rules: Rules = Rules(),
        dropout: float = 0.0,
        codec: Codec | None = None,
    ) -> None:
        targets = find_targets(module, trainable, rules, ranks)
        layers = add_lora(module, targets.sizes, dropout, dora=True)
        updates: dict[str, Update] = {name: DoraUpdate(layer) for name, layer in layers.items()}
        updates |= add_diffs(module, targets.full)
        super().__init__(lora_title("DoRA", ranks), trainable, targets, updates, lora_header("dora", ranks), codec)


class DoraUpdate:
    """peft's LoRA layer with a magnitude, as `toolkit.networks.adapter.Update`."""

    def __init__(self, layer: LoraLayer) -> None:
        self.lora = LoraUpdate(layer)
        inner = layer.lora_magnitude_vector[ADAPTER]
        self.magnitude: nn.Parameter = inner.weight
        self.strength = 1.0
        # peft takes the norm in the weight's own, narrower dtype
        norm = torch.linalg.vector_norm(dense_weight(layer.get_base_layer()).float().flatten(1), dim=1)
        self.magnitude.data = norm.view(self.magnitude.shape)
        self.params: Mapping[str, nn.Parameter] = {**self.lora.params, MAGNITUDE: self.magnitude}
        inner.register_forward_pre_hook(_unquantized, with_kwargs=True)
        inner.register_forward_hook(lambda module, inputs, change: change * self.strength)

    def act(self, strength: float) -> None:
        """Set the strength: this much of the way from the frozen layer to the trained one."""
        self.strength = strength

    def written(self) -> dict[str, Tensor]:
        """A and B, each with the root of alpha / rank, and a magnitude per output."""
        return {**self.lora.written(), MAGNITUDE: self.magnitude}

    def fitted(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A and B of this rank and alpha, and the magnitude."""
        if found.get(MAGNITUDE, torch.empty(0)).numel() != self.magnitude.numel():
            raise ValueError(f"has {', '.join(sorted(found))}, a DoRA has {MAGNITUDE} of this size too")
        values = self.lora.fitted({suffix: tensor for suffix, tensor in found.items() if suffix != MAGNITUDE})
        return {**values, MAGNITUDE: found[MAGNITUDE].view(self.magnitude.shape)}


def dense_weight(layer: nn.Module) -> Tensor:
    """The weight of `layer` as plain numbers, whatever it is stored in."""
    weight: Any = layer.weight
    return weight.dequantize() if is_wrapper(weight) else weight


def _unquantized(module: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Hand peft the frozen layer with a plain weight, in the dtype of the input as it computes in."""
    base = named["base_layer"]
    options = {key: getattr(base, key) for key in ("stride", "padding", "dilation", "groups") if hasattr(base, key)}
    weight = nn.Parameter(dense_weight(base).detach().to(inputs[0].dtype), requires_grad=False)
    return inputs, {**named, "base_layer": SimpleNamespace(weight=weight, bias=base.bias, **options)}
