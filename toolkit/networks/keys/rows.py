"""One layer's tensors, by suffix: alpha folded in, layers that other programs fuse put together and taken apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from toolkit.config.key_names import Fused
from toolkit.networks.keys.suffixes import ALPHA, DIFF, DOWN, LOHA, LOKR, MAGNITUDE, MID, UP

Layer = dict[str, Tensor]
# pairs (up, down) whose product has the rows of `up`
PRODUCTS = ((UP, DOWN), ("hada_w1_a", "hada_w1_b"), ("hada_w2_a", "hada_w2_b"))
CORES = ("hada_t1", "hada_t2", "lokr_t2")


def fold_alpha(layer: Mapping[str, Tensor], name: str) -> Layer:
    """The layer without `alpha` and `lora_mid`, both multiplied into what stays. Raises ValueError as `check` does."""
    check(layer, name)
    # numbers of 8 bits know no arithmetic
    folded = {
        suffix: tensor.float() if tensor.dtype.itemsize == 1 else tensor
        for suffix, tensor in layer.items()
        if suffix not in (ALPHA, MID)
    }
    scale = _scale(layer)
    if DOWN in folded:
        if MID in layer:
            mid, down = layer[MID].float(), layer[DOWN].float().flatten(1)
            folded[DOWN] = torch.einsum("or...,ri->oi...", mid, down).to(layer[DOWN].dtype)
        if scale != 1:
            root = abs(scale) ** 0.5
            folded[DOWN] = folded[DOWN] * root
            folded[UP] = folded[UP] * (root if scale > 0 else -root)
    elif scale != 1:
        first = next(s for s in ("hada_w1_b", "lokr_w1", "lokr_w1_a", *folded) if s in folded)
        folded[first] = folded[first] * scale
    if MAGNITUDE in folded:
        folded[MAGNITUDE] = _rowwise(folded[MAGNITUDE], folded, name)
    return folded


def written_alpha(layer: Mapping[str, Tensor]) -> Tensor:
    """The alpha that means a scale of 1 to readers of kohya's files."""
    return torch.tensor(float(_rank(layer) or 1))


def fuse(parts: Sequence[Mapping[str, Tensor] | None], fused: Fused, name: str) -> Layer | None:
    """One layer in place of the `parts`, exactly: products become block-diagonal unless the parts share `down`.

    None where there is none such: a Kronecker product of the parts' Kronecker products. A missing part has zero rows.
    """
    present = [part for part in parts if part is not None]
    if any(set(part) & set(LOKR) or "hada_t1" in part for part in present):
        return None
    if len({frozenset(part) for part in present}) != 1:
        raise ValueError(f"{name}: layers of different networks cannot be fused into it")
    columns = _columns(present[0])
    sizes = [_rows(part) if part is not None else columns * rows for part, rows in zip(parts, fused.rows, strict=True)]
    whole: Layer = {}
    for up, down in PRODUCTS:
        if up in present[0]:
            _refuse_unknown_sizes(sizes, fused, name)
            whole[up], whole[down] = _fuse_product(
                [(part[up], part[down]) if part is not None else None for part in parts], sizes
            )
    for suffix in (*DIFF, MAGNITUDE):
        if suffix in present[0]:
            _refuse_unknown_sizes(sizes, fused, name)
            if suffix == MAGNITUDE and None in parts:
                raise ValueError(f"{name}: all of {', '.join(fused.parts)} have to be adapted to write DoRA fused")
            like = present[0][suffix]
            rows = [
                part[suffix] if part is not None else like.new_zeros(size, *like.shape[1:])
                for part, size in zip(parts, sizes, strict=True)
            ]
            whole[suffix] = torch.cat(rows)
    return whole


def unfuse(whole: Mapping[str, Tensor], fused: Fused, name: str) -> list[Layer | None]:
    """The parts of a fused layer; None for a part that the layer does not change while others are changed."""
    sizes = part_rows(_rows(whole), _columns(whole), fused, name)
    parts: list[Layer] = [{} for _ in sizes]
    for up, down in PRODUCTS:
        if up in whole:
            for part, pair in zip(parts, _unfuse_product(whole[up], whole[down], sizes), strict=True):
                part[up], part[down] = pair
    for suffix in (*DIFF, MAGNITUDE):
        if suffix in whole:
            for part, rows in zip(parts, whole[suffix].split(sizes), strict=True):
                part[suffix] = rows.clone()
    if set(whole) & set(LOKR):
        _unfuse_kronecker(whole, parts, sizes, name)
    is_idle = [_is_idle(part) for part in parts]
    return [None if idle and not all(is_idle) else part for idle, part in zip(is_idle, parts, strict=True)]


def part_rows(total: int, columns: int, fused: Fused, name: str) -> list[int]:
    """How many of the `total` rows of a fused layer belong to each of its parts."""
    known = [columns * rows for rows in fused.rows]
    shares = fused.rows.count(0)
    left = total - sum(known)
    if left % max(shares, 1) or left < 0 or (left and not shares):
        raise ValueError(f"{name}: {total} rows of {columns} columns are not those of {', '.join(fused.parts)}")
    return [size or left // shares for size in known]


def swap_halves(layer: Mapping[str, Tensor], name: str) -> Layer:
    """The layer with the lower half of its rows on top, if it has twice as many rows as columns."""
    if set(layer) & set(LOKR):
        raise ValueError(f"{name}: LoKr weights of this layer have no other form; use the key format diffusers")
    if _rows(layer) != 2 * _columns(layer):
        return dict(layer)
    moved = (UP, "hada_w1_a", "hada_w2_a", MAGNITUDE, *DIFF)
    return {s: torch.cat(t.chunk(2)[::-1]) if s in moved else t for s, t in layer.items()}


def _fuse_product(pairs: Sequence[tuple[Tensor, Tensor] | None], sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    downs = [pair[1] for pair in pairs if pair is not None]
    if len(downs) == len(pairs) and all(torch.equal(down, downs[0]) for down in downs):
        return torch.cat([pair[0] for pair in pairs if pair is not None]), downs[0]
    blocks = [
        pair[0] if pair is not None else downs[0].new_zeros(size, 0) for pair, size in zip(pairs, sizes, strict=True)
    ]
    return torch.block_diag(*blocks), torch.cat(downs)


def _unfuse_product(up: Tensor, down: Tensor, sizes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """(up, down) of each part: its own columns of `up` where these are block-diagonal, else all of them."""
    rows = up.split(list(sizes))
    share = up.shape[1] // len(sizes)
    used = torch.stack([part.any(dim=0) for part in rows])
    if up.shape[1] % len(sizes) == 0 and used.any():
        owners = torch.arange(len(sizes)).repeat_interleave(share)
        if not any(used[number][owners != number].any() for number in range(len(sizes))):
            kept = [(owners == number).nonzero().flatten() for number in range(len(sizes))]
            return [(part[:, k].clone(), down[k].clone()) for part, k in zip(rows, kept, strict=True)]
    if bool((used.sum(dim=0) == 1).all()):
        return [(part[:, k].clone(), down[k].clone()) for part, k in zip(rows, used, strict=True)]
    return [(part.clone(), down.clone()) for part in rows]


def _unfuse_kronecker(whole: Mapping[str, Tensor], parts: list[Layer], sizes: Sequence[int], name: str) -> None:
    left = next(suffix for suffix in ("lokr_w1", "lokr_w1_a") if suffix in whole)
    inner = _rows(whole) // whole[left].shape[0]
    if any(size % inner for size in sizes):
        raise ValueError(
            f"{name}: this LoKr factor of {inner} rows spans several of the layers that the program keeps apart; "
            "it cannot be converted, only used where they are one layer"
        )
    for part, rows in zip(parts, whole[left].split([size // inner for size in sizes]), strict=True):
        part.update({suffix: tensor.clone() for suffix, tensor in whole.items()})
        part[left] = rows.clone()


def _is_idle(part: Layer) -> bool:
    told = (UP, "hada_w1_a", *DIFF)
    return set(part).isdisjoint((*LOKR, MAGNITUDE)) and not any(part[suffix].any() for suffix in told if suffix in part)


def _refuse_unknown_sizes(sizes: Sequence[int], fused: Fused, name: str) -> None:
    if 0 in sizes:
        raise ValueError(
            f"{name}: this key format writes {', '.join(fused.parts)} as one layer, and some of them are not adapted; "
            "adapt all of them or use the key format diffusers"
        )


def check(layer: Mapping[str, Tensor], name: str) -> None:
    """Raise ValueError, which names the layer, if tensors lack or do not pair up."""
    if ALPHA in layer and layer[ALPHA].numel() != 1:
        raise ValueError(f"{name}: alpha has the shape {list(layer[ALPHA].shape)}, and should be one number")
    for up, down in (*PRODUCTS, ("lokr_w1_a", "lokr_w1_b"), ("lokr_w2_a", "lokr_w2_b")):
        if (up in layer) != (down in layer):
            raise ValueError(f"{name}: {up} and {down} come in pairs, and one of them is missing")
        # a third factor may lie between the two
        if up in layer and set(layer).isdisjoint((MID, *CORES)) and layer[up].shape[1:2] != layer[down].shape[:1]:
            shapes = f"{up} {list(layer[up].shape)} and {down} {list(layer[down].shape)}"
            raise ValueError(f"{name}: {shapes} are of different ranks")
    if set(layer) & set(LOKR):
        for side in ("lokr_w1", "lokr_w2"):
            if not {side, side + "_a"} & set(layer):
                raise ValueError(f"{name}: {side} is missing")
    if set(layer) & set(LOHA) and not {"hada_w1_a", "hada_w2_a"} <= set(layer):
        raise ValueError(f"{name}: LoHa needs hada_w1_a and hada_w2_a")
    if set(layer) <= {ALPHA, MID, MAGNITUDE}:
        raise ValueError(f"{name}: there are no weights")


def _rank(layer: Mapping[str, Tensor]) -> int | None:
    """The number that alpha is divided by; None where alpha has no meaning: no factor is of low rank."""
    for down in (DOWN, "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if down in layer:
            return int(layer[down].shape[0])
    return None


def _scale(layer: Mapping[str, Tensor]) -> float:
    rank = _rank(layer)
    return float(layer[ALPHA].item()) / rank if ALPHA in layer and rank else 1.0


def _rows(layer: Mapping[str, Tensor]) -> int:
    for suffix in (UP, "hada_w1_a", *DIFF):
        if suffix in layer:
            return int(layer[suffix].shape[0])
    left = layer["lokr_w1"] if "lokr_w1" in layer else layer["lokr_w1_a"]
    right = layer["lokr_w2"] if "lokr_w2" in layer else layer["lokr_w2_a"]
    return int(left.shape[0] * right.shape[0])


def _columns(layer: Mapping[str, Tensor]) -> int:
    for suffix in (DOWN, "hada_w1_b", "diff"):
        if suffix in layer:
            return int(layer[suffix].shape[1])
    if not set(layer) & set(LOKR):
        return 0
    left = layer["lokr_w1"] if "lokr_w1" in layer else layer["lokr_w1_b"]
    right = layer["lokr_w2"] if "lokr_w2" in layer else layer["lokr_w2_b"]
    return int(left.shape[1] * right.shape[1])


def _rowwise(magnitude: Tensor, layer: Mapping[str, Tensor], name: str) -> Tensor:
    """Magnitudes in the shape that peft has: [out] of a Linear, [1, out, 1, 1] of a convolution."""
    rows = _rows(layer)
    if magnitude.numel() != rows or (magnitude.shape[0] == 1 and magnitude.ndim == 2 and rows != 1):
        raise ValueError(
            f"{name}: DoRA magnitudes of shape {tuple(magnitude.shape)} are not one per output; not supported"
        )
    is_conv = layer.get(DOWN, magnitude).ndim == 4
    return magnitude.reshape(1, rows, 1, 1) if is_conv else magnitude.reshape(rows)
