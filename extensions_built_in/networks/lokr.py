"""LoKr (Yeh et al., 2023), by peft: the update of a weight is the Kronecker product of two smaller matrices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from einops import rearrange
from peft import LoKrConfig, LoKrModel
from peft.tuners.lokr.layer import Conv2d, Linear, LoKrLayer
from torch import Tensor, nn

from extensions_built_in.networks.diff import add_diffs
from extensions_built_in.networks.inject import ADAPTER, follow_autocast, inject
from toolkit.models.family import Trainable
from toolkit.networks.adapter import Adapter, Update
from toolkit.networks.keys.codec import Codec
from toolkit.networks.ranks import Ranks
from toolkit.networks.resize import factor, resize_rank
from toolkit.networks.targets import Rules, find_targets

NAMES = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
WHOLE = 1_000_000
"""A rank above that of any layer: both matrices are whole."""


class LokrNetwork(Adapter):
    """Updates w1 (x) w2 of the chosen layers; w2 is a product of rank `ranks`, or whole."""

    def __init__(
        self,
        module: nn.Module,
        trainable: Trainable,
        ranks: Ranks,
        split: int = -1,
        rules: Rules = Rules(),
        rank_dropout: float = 0.0,
        module_dropout: float = 0.0,
        codec: Codec | None = None,
    ) -> None:
        targets = find_targets(module, trainable, rules, ranks)
        layers = inject(
            module,
            KronModel,
            LoKrConfig,
            targets.sizes,
            decompose_factor=split,
            rank_dropout=rank_dropout,
            module_dropout=module_dropout,
            # w2 starts at zero, as in LyCORIS
            init_weights="lycoris",
        )
        updates: dict[str, Update] = {name: LokrUpdate(layer) for name, layer in layers.items()}
        updates |= add_diffs(module, targets.full)
        is_whole = ranks.linear == WHOLE
        size = "full rank" if is_whole else f"rank {ranks.linear}, alpha {ranks.alpha:g}"
        title = f"LoKr {size}, factor {split if split > 0 else 'auto'}"
        header = {
            "network_type": "lokr",
            "ss_network_module": "lycoris.kohya",
            "ss_network_args": json.dumps({"algo": "lokr", "factor": str(split), "full_matrix": str(is_whole)}),
        }
        if not is_whole:
            header |= {"ss_network_dim": str(ranks.linear), "ss_network_alpha": str(ranks.alpha)}
        super().__init__(title, trainable, targets, updates, header, codec)


class KronLinear(Linear):
    """peft's LoKr layer without the large weight that its two matrices stand for."""

    def _get_delta_activations(self, adapter_name: str, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.training and self.rank_dropout[adapter_name]:
            return super()._get_delta_activations(adapter_name, input, *args, **kwargs)
        w1, w2 = self._whole("lokr_w1", adapter_name), self._whole("lokr_w2", adapter_name)
        # (w1 (x) w2) x = w1 X w2^T, with x as the rows of X
        x = rearrange(self._cast_input_dtype(input, w1.dtype), "... (m n) -> ... m n", n=w2.shape[1])
        y = w1 @ (x @ w2.T) * self.scaling[adapter_name]
        return rearrange(y, "... l k -> ... (l k)")

    def _whole(self, name: str, adapter_name: str) -> Tensor:
        matrices = getattr(self, name)
        if adapter_name in matrices:
            return matrices[adapter_name]
        return getattr(self, f"{name}_a")[adapter_name] @ getattr(self, f"{name}_b")[adapter_name]


class KronModel(LoKrModel):
    """peft's LoKr with that layer."""

    layers_mapping = {nn.Linear: KronLinear, nn.Conv2d: Conv2d}


class LokrUpdate:
    """peft's LoKr layer, as `toolkit.networks.adapter.Update`."""

    def __init__(self, layer: LoKrLayer) -> None:
        self.layer = layer
        follow_autocast(layer)
        self.params: Mapping[str, nn.Parameter] = {
            name: getattr(layer, name)[ADAPTER] for name in NAMES if ADAPTER in getattr(layer, name)
        }
        # alpha / rank means nothing where there is no rank
        is_whole = self.params.keys() == {"lokr_w1", "lokr_w2"}
        self.scale = 1.0 if is_whole else float(layer.scaling[ADAPTER])
        self.act(1.0)

    def act(self, strength: float) -> None:
        """Set the strength."""
        self.layer.scaling[ADAPTER] = self.scale * strength

    def written(self) -> dict[str, Tensor]:
        """The matrices, w1 times alpha / rank."""
        return {
            name: param * (self.scale if name in ("lokr_w1", "lokr_w1_a") else 1.0)
            for name, param in self.params.items()
        }

    def fitted(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The matrices, factored or multiplied out as this layer has them."""
        if not found.keys() <= set(NAMES):
            raise ValueError(f"has {', '.join(sorted(found))}, a LoKr has lokr_w1, lokr_w2 or their factors _a, _b")
        values = {**self._matrix("lokr_w1", found), **self._matrix("lokr_w2", found)}
        first = "lokr_w1" if "lokr_w1" in values else "lokr_w1_a"
        return {**values, first: values[first] / self.scale}

    def _matrix(self, name: str, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if name not in found and not {f"{name}_a", f"{name}_b"} <= found.keys():
            raise ValueError(f"has neither {name} nor {name}_a and {name}_b")
        pair = (found[f"{name}_b"], found[f"{name}_a"]) if name not in found else None
        mine = self.params.get(name)
        if mine is not None:
            whole = (pair[1] @ pair[0] if pair else found[name]).flatten(1)
            self._check(whole.shape == mine.flatten(1).shape)
            return {name: whole.view(mine.shape)}
        down, up = self.params[f"{name}_b"], self.params[f"{name}_a"]
        if pair is None:
            whole = found[name].flatten(1)
            self._check(whole.shape == (len(up), down.shape[1]))
            pair = factor(whole, len(down))
        self._check((len(pair[1]), pair[0].shape[1]) == (len(up), down.shape[1]))
        if len(pair[0]) != len(down):
            pair = resize_rank(*pair, down.detach().to("cpu"))
        return {f"{name}_b": pair[0], f"{name}_a": pair[1]}

    def _check(self, is_same: bool) -> None:
        if not is_same:
            raise ValueError("is divided otherwise: it was trained with another lokr_factor")
