"""Changes of one LoRA-like file that keep the names of its keys: another strength, another rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.networks.keys.rows import check, fold_alpha
from toolkit.networks.keys.suffixes import ALPHA, DOWN, MAGNITUDE, MID, UP, network_type, split_key
from toolkit.networks.resize import cut_product

# the one tensor of a layer by which its update is multiplied, by the layer's kind
_FACTORS = ("lokr_w1", "lokr_w1_a", "hada_w1_a")


@dataclass(frozen=True)
class LayerCut:
    """What became of one layer."""

    layer: str
    before: int
    after: int
    kept: float
    """Share of the energy, the squared singular values, that is left."""


def layers_of(tensors: Iterable[str]) -> dict[str, dict[str, str]]:
    """Layer, as the file spells it -> suffix -> key, from the keys of a file."""
    found: dict[str, dict[str, str]] = {}
    for key in tensors:
        split = split_key(key)
        if split is not None:
            found.setdefault(split[0], {})[split[1]] = key
    return found


def rescale(tensors: Mapping[str, Tensor], factor: float, target: str = "up_down") -> dict[str, Tensor]:
    """The tensors of a network whose update is `factor` times as large, a negative one turns it around.

    `up_down`: the root of it goes into each of two factors, which keeps both in the range of fp16; `alpha`: all of it
    into alpha. Raises ValueError for DoRA, and if there is no alpha to change.
    """
    changed = dict(tensors)
    for layer, keys in layers_of(tensors).items():
        check({suffix: tensors[key] for suffix, key in keys.items()}, layer)
        if MAGNITUDE in keys:
            raise ValueError(f"{layer} is DoRA: its strength is no factor of its tensors; scale it where it is used")
        if target == "alpha" and ALPHA not in keys and not set(keys) <= {"diff", "diff_b"}:
            raise ValueError(f"{layer} has no alpha, which means that it equals the rank; take scale_target: up_down")
        for suffix, by in _factors(keys, factor, target).items():
            tensor = tensors[keys[suffix]]
            changed[keys[suffix]] = (tensor.float() * by).to(tensor.dtype if suffix == ALPHA else torch.float32)
    return changed


def resize(
    tensors: Mapping[str, Tensor],
    rank: int | None,
    energy: float = 1.0,
    device: torch.device | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[dict[str, Tensor], list[LayerCut]]:
    """The nearest network of at most this rank that keeps at least this share of the energy of each layer.

    Alpha is multiplied in, and equals the rank where the file had one. Layers of full differences stay. Raises
    ValueError for LoKr and LoHa, which have no rank of this kind.
    """
    changed = dict(tensors)
    cuts: list[LayerCut] = []
    for layer, keys in layers_of(tensors).items():
        check({suffix: tensors[key] for suffix, key in keys.items()}, layer)
        kind = network_type(set(keys))
        if kind in ("lokr", "loha"):
            raise ValueError(
                f"{layer} is {kind}; `aitk lora merge FILE --method svd --rank N` (process merge_loras) makes a LoRA "
                "of it"
            )
        # a rank of 0 changes nothing, and can be no lower
        if kind in ("lora", "dora") and len(tensors[keys[DOWN]]):
            whole = fold_alpha({suffix: tensors[key].float() for suffix, key in keys.items()}, layer)
            down, up = (whole[suffix].to(device or "cpu") for suffix in (DOWN, UP))
            cut = cut_product(down.flatten(1), up.flatten(1), rank, energy)
            size = len(cut.down)
            changed[keys[DOWN]] = cut.down.reshape(size, *down.shape[1:]).cpu()
            changed[keys[UP]] = cut.up.reshape(len(up), size, *up.shape[2:]).cpu()
            if ALPHA in keys:
                changed[keys[ALPHA]] = torch.tensor(float(size))
            if MID in keys:
                del changed[keys[MID]]
            cuts.append(LayerCut(layer, len(down), size, cut.kept))
        advance(1)
    if not cuts:
        raise ValueError("there is no layer with a rank in it")
    return changed, cuts


def _factors(keys: Mapping[str, str], factor: float, target: str) -> dict[str, float]:
    """Suffix -> what its tensor is multiplied by."""
    found = {suffix: factor for suffix in ("diff", "diff_b") if suffix in keys}
    if target == "alpha" and ALPHA in keys:
        return found | {ALPHA: factor}
    if DOWN in keys:
        root = abs(factor) ** 0.5
        return found | {DOWN: root, UP: root if factor >= 0 else -root}
    return found | {suffix: factor for suffix in [next((s for s in _FACTORS if s in keys), "")] if suffix}
