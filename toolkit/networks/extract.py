"""The difference of two checkpoints as a network: low rank where layers can be adapted, one layer after another."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from toolkit.models.family import Trainable
from toolkit.models.memory import trim_heap
from toolkit.models.pair import Pair
from toolkit.networks.keys.suffixes import DOWN, UP
from toolkit.networks.svd import Mode, choose_rank, exact, largest
from toolkit.networks.targets import adaptable_layers, is_large_conv, weight_layers

OUTSIDE = "layers outside of the blocks"
CONVOLUTIONS = "convolutions larger than 1x1"
BIASES = "biases"
OTHERS = "norms, embeddings and other weights"


@dataclass(frozen=True)
class Rules:
    """Which layers are adapted, and by how much."""

    mode: Mode
    linear: float
    """The number of the mode for Linear layers and 1x1 convolutions."""
    conv: float | None = None
    """That for larger convolutions; None: they are left out."""
    most: int | None = None
    """No layer gets a larger rank."""
    blocks_only: bool = True
    whole: bool = False
    """Write what has no low rank too, as `.diff` and `.diff_b`."""


@dataclass(frozen=True)
class LayerReport:
    """What was kept of one layer's difference."""

    name: str
    """With the prefix of native names."""
    shape: tuple[int, ...]
    rank: int
    """0: written whole."""
    norm: float
    """Frobenius norm of the difference."""
    energy: float
    """Share of its square that is kept, 0 to 1."""


@dataclass
class Extraction:
    """The network of one or more modules, and what there is to say about it."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    """By native name `<prefix><layer>.<suffix>`, on the CPU."""
    layers: list[LayerReport] = field(default_factory=list)
    same: int = 0
    """Tensors that do not differ."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Why -> the tensors that differ and are not written."""

    @property
    def energy(self) -> float:
        """The share of the squared norm of all the written layers' differences that is kept."""
        whole = sum(layer.norm**2 for layer in self.layers)
        return sum(layer.energy * layer.norm**2 for layer in self.layers) / whole if whole else 1.0


def extract(
    pair: Pair,
    trainable: Trainable,
    rules: Rules,
    device: torch.device,
    dtype: torch.dtype,
    found: Extraction,
    names: Iterable[str] | None = None,
) -> None:
    """Add the differences of one module to `found`, tensors in `dtype`; computed in fp32 on `device`.

    At most one layer's difference is in memory. `names`: `pair.names`, or these wrapped in what watches progress.
    """
    layers = _Layers(pair.module, trainable, rules)
    for name in pair.names if names is None else names:
        # what the layer before took, which lies in pieces between the small tensors that are kept
        difference: Tensor | None = None
        trim_heap()
        difference = pair.difference(name, device)
        pair.close()
        if difference is None:
            found.same += 1
            continue
        layer, _, leaf = name.rpartition(".")
        number, why = layers.place(layer, leaf)
        if number is not None:
            report, down, up = factor_layer(difference, rules, number, trainable.prefix + layer)
            found.layers.append(report)
            found.tensors |= {
                f"{report.name}.{DOWN}": down.to("cpu", dtype),
                f"{report.name}.{UP}": up.to("cpu", dtype),
            }
        elif rules.whole and why in (BIASES, CONVOLUTIONS, OTHERS) and layers.is_leaf(layer, leaf):
            norm = float(difference.norm())
            found.layers.append(LayerReport(trainable.prefix + name, tuple(difference.shape), 0, norm, 1.0))
            suffix = "diff" if leaf == "weight" else "diff_b"
            found.tensors[f"{trainable.prefix}{layer}.{suffix}"] = difference.to("cpu", dtype)
        else:
            found.left_out.setdefault(why, []).append(trainable.prefix + name)


def factor_layer(difference: Tensor, rules: Rules, number: float, name: str) -> tuple[LayerReport, Tensor, Tensor]:
    """(report, down, up) of a layer's difference [m, n] or [m, c, k, k]; the latter as two convolutions.

    down [r, n] or [r, c, k, k], up [m, r] or [m, r, 1, 1].
    """
    matrix = difference.flatten(1)
    norm = float(torch.linalg.vector_norm(matrix))
    if not math.isfinite(norm):
        raise ValueError(f"{name}: one of the checkpoints has values that are no numbers (nan or inf)")
    most = min(rules.most or min(matrix.shape), *matrix.shape)
    if rules.mode == "fixed":
        kept = largest(matrix, min(int(number), most))
    else:
        # the sum of all singular values needs all of them, the largest ones do not
        spectrum = exact(matrix) if rules.most is None or rules.mode == "quantile" else largest(matrix, most)
        kept = spectrum.cut(min(choose_rank(spectrum.s, rules.mode, number), most))
    # squares of very small numbers are 0
    energy = min(1.0, float(kept.s.cpu().double().square().sum()) / norm**2) if norm else 1.0
    down, up = kept.factors()
    rank, kernel = len(kept.s), difference.shape[1:]
    report = LayerReport(name, tuple(difference.shape), rank, norm, energy)
    return report, down.reshape(rank, *kernel), up.reshape(len(up), rank, *(1,) * (len(kernel) - 1))


def pad_namesakes(found: Extraction, prefix: str) -> None:
    """Give layers whose names end alike one rank, by rows and columns of zeros.

    peft takes the rank of `proj_out` for that of `blocks.0.proj_out` too, if it is not the most frequent one.
    """
    downs = [name for name in found.tensors if name.startswith(prefix) and name.endswith(f".{DOWN}")]
    ranks = {name.removeprefix(prefix).removesuffix(f".{DOWN}"): found.tensors[name].shape[0] for name in downs}
    for short in ranks:
        alike = [name for name in ranks if name == short or name.endswith(f".{short}")]
        most = max(ranks[name] for name in alike)
        for name in alike:
            if ranks[name] < most:
                down, up = (f"{prefix}{name}.{suffix}" for suffix in (DOWN, UP))
                found.tensors[down] = _padded(found.tensors[down], 0, most)
                found.tensors[up] = _padded(found.tensors[up], 1, most)
                ranks[name] = most


def _padded(tensor: Tensor, axis: int, size: int) -> Tensor:
    zeros = list(tensor.shape)
    zeros[axis] = size - tensor.shape[axis]
    return torch.cat([tensor, tensor.new_zeros(zeros)], dim=axis)


class _Layers:
    """Where the rules put the tensors of a module."""

    def __init__(self, module: Any, trainable: Trainable, rules: Rules) -> None:
        self.rules, self.blocks = rules, trainable.blocks
        able = {name: module.get_submodule(name) for name in adaptable_layers(module, conv=True)}
        self.linear = {name for name, layer in able.items() if not is_large_conv(layer)}
        self.conv = able.keys() - self.linear
        self.with_weight = weight_layers(module).keys()

    def place(self, layer: str, leaf: str) -> tuple[float | None, str]:
        """(the mode's number if the tensor is adapted, else None; why it is not)."""
        if leaf == "bias":
            return None, BIASES
        if leaf != "weight" or layer not in self.linear | self.conv:
            return None, OTHERS
        if layer in self.conv and self.rules.conv is None:
            return None, CONVOLUTIONS
        if self.rules.blocks_only and not re.fullmatch(self.blocks, layer):
            return None, OUTSIDE
        return (self.rules.linear if layer in self.linear else self.rules.conv), ""

    def is_leaf(self, layer: str, leaf: str) -> bool:
        """Whether a file of a network has a name for the tensor."""
        return layer in self.with_weight and leaf in ("weight", "bias")


def watch(names: Iterable[str], advance: Callable[[int], None], check: Callable[[], None]) -> Iterable[str]:
    """`names` one by one; `advance(1)` after each, `check()` before each, which may raise."""
    for name in names:
        check()
        yield name
        advance(1)
