"""Layers that are trained fully: a difference to every weight and bias, kept apart from the frozen layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolkit.models.family import Trainable
from toolkit.models.quantize import is_quantized
from toolkit.networks.adapter import Adapter
from toolkit.networks.keys.codec import Codec
from toolkit.networks.ranks import Ranks
from toolkit.networks.targets import Rules, find_targets

ADDITIVE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose answer is linear in their weight."""


class FullrankNetwork(Adapter):
    """A difference of full rank to the chosen Linear layers and convolutions of `module`."""

    def __init__(
        self,
        module: nn.Module,
        trainable: Trainable,
        rules: Rules = Rules(),
        conv: bool = True,
        codec: Codec | None = None,
    ) -> None:
        found = find_targets(module, trainable, rules, Ranks(1, 1.0, conv=int(conv)))
        targets = replace(found, sizes={}, full=(*found.sizes, *found.full))
        header = {"network_type": "fullrank", "ss_network_module": "networks.fullrank"}
        super().__init__("full rank", trainable, targets, add_diffs(module, targets.full), header, codec)


class DiffLayer(nn.Module):
    """A layer as if `diff` were added to its weight and `diff_b` to its bias."""

    def __init__(self, base_layer: Any) -> None:
        super().__init__()
        self.base_layer = base_layer
        bias = getattr(base_layer, "bias", None)
        self.diff = nn.Parameter(torch.zeros(tuple(base_layer.weight.shape)))
        self.diff_b = nn.Parameter(torch.zeros(tuple(bias.shape))) if bias is not None else None
        self.strength = 1.0

    def __getattr__(self, name: str) -> Any:
        """Models ask their layers for sizes and dtypes."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's answer with the difference."""
        base: Any = self.base_layer
        if isinstance(base, ADDITIVE):
            # the frozen weight may be quantized, and their sum would be kept for the backward pass
            y = base(x, *args, **kwargs)
            wide = x.to(self.diff.dtype)
            if isinstance(base, nn.Linear):
                change = F.linear(wide, self.diff, self.diff_b)
            else:
                change = base._conv_forward(wide, self.diff, self.diff_b)
            return y + (self.strength * change).to(y.dtype)
        weights = {"weight": (base.weight + self.strength * self.diff).to(base.weight.dtype)}
        if self.diff_b is not None:
            weights["bias"] = (base.bias + self.strength * self.diff_b).to(base.bias.dtype)
        return torch.func.functional_call(base, weights, (x, *args), kwargs)


class DiffUpdate:
    """A fully trained layer, as `toolkit.networks.adapter.Update`."""

    def __init__(self, layer: DiffLayer) -> None:
        self.layer = layer
        self.params: Mapping[str, nn.Parameter] = dict(layer.named_parameters(recurse=False))

    def act(self, strength: float) -> None:
        """Set the strength."""
        self.layer.strength = strength

    def written(self) -> dict[str, Tensor]:
        """`diff` and `diff_b`."""
        return dict(self.params)

    def fitted(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors as they are; a bias that a file lacks did not change."""
        if not found.keys() <= self.params.keys() or "diff" not in found:
            raise ValueError(f"has {', '.join(sorted(found))}, but the layer is trained fully: diff, diff_b")
        values = {suffix: found.get(suffix, torch.zeros_like(param)) for suffix, param in self.params.items()}
        if any(value.shape != self.params[suffix].shape for suffix, value in values.items()):
            raise ValueError("is of another size")
        return values


def add_diffs(module: nn.Module, names: Iterable[str]) -> dict[str, DiffUpdate]:
    """Freeze `module` and wrap its layers `names`. Raises ValueError for one whose weight cannot take a difference."""
    module.requires_grad_(False)
    updates = {}
    for name in names:
        layer = module.get_submodule(name)
        if is_quantized(layer) and not isinstance(layer, ADDITIVE):
            raise ValueError(f"network: {name}, a {type(layer).__name__}, is quantized and cannot be trained fully")
        parent, _, child = name.rpartition(".")
        wrapped = DiffLayer(layer)
        setattr(module.get_submodule(parent), child, wrapped)
        updates[name] = DiffUpdate(wrapped)
    return updates
