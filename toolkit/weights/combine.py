"""Several LoRAs combined into one: exactly by concatenation, by the mean of their factors, or cut to a rank by SVD.

The update of a layer is B A with A [r, n] and B [m, r]; convolutions count as matrices of flattened columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from toolkit.networks.attached import change
from toolkit.networks.keys.suffixes import DOWN, UP
from toolkit.networks.resize import Cut, cut_matrix, cut_product
from toolkit.networks.svd import largest
from toolkit.weights.network import Layers, NetworkFile, kind_of, shape_of

Weighted = tuple[float, Mapping[str, Tensor], str]
"""(weight, a layer's tensors by suffix, what it is called in errors)."""


@dataclass
class Combined:
    """The layers of the result, and what was lost."""

    layers: Layers = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)
    """Layer -> share of the energy that the rank left (svd)."""
    errors: dict[str, float] = field(default_factory=dict)
    """Layer -> |result - exact| / |exact| (sum)."""


def combine(
    files: Sequence[NetworkFile],
    weights: Sequence[float],
    method: str,
    *,
    rank: int | None = None,
    energy: float = 1.0,
    device: torch.device,
    advance: Callable[[int], None] = lambda count: None,
) -> Combined:
    """One network that does what `files` do together with these weights; layers that some lack are the others' alone.

    Raises ValueError for networks whose updates do not add up: DoRA, and with another method than svd LoKr and LoHa.
    """
    done = Combined()
    for name in dict.fromkeys(name for file in files for name in file.layers):
        given: list[Weighted] = []
        for file, weight in zip(files, weights, strict=True):
            if name in file.layers:
                moved = {suffix: tensor.to(device) for suffix, tensor in file.layers[name].items()}
                given.append((weight, moved, f"{file.path}: {''.join(name)}"))
        _refuse(given, method)
        result: dict[str, Tensor] = {}
        biases = [weight * tensors["diff_b"] for weight, tensors, _ in given if "diff_b" in tensors]
        if biases:
            result["diff_b"] = torch.stack(biases).sum(0)
        matrices = [one for one in given if set(one[1]) != {"diff_b"}]
        if matrices:
            result |= _combine_layer(matrices, method, rank, energy, "".join(name), done)
        done.layers[name] = {suffix: tensor.cpu() for suffix, tensor in result.items()}
        advance(1)
    return done


def concatenate(given: Sequence[Weighted]) -> tuple[Tensor, Tensor]:
    """(A [R, n], B [m, R]) with R the sum of the ranks, whose product is exactly the weighted sum of the updates."""
    downs, ups = [], []
    for weight, tensors, _ in given:
        root = abs(weight) ** 0.5
        downs.append(tensors[DOWN].flatten(1) * root)
        ups.append(tensors[UP].flatten(1) * (root if weight >= 0 else -root))
    return torch.cat(downs), torch.cat(ups, dim=1)


def mean_factors(given: Sequence[Weighted]) -> tuple[Tensor, Tensor]:
    """(A, B) = (sum w A / sqrt W, sum w B / sqrt W) with W the sum of the weights.

    Exact where the files have the same A or the same B; near the sum of the updates for states of one training run.
    """
    total = sum(weight for weight, _, _ in given)
    if total <= 0:
        raise ValueError(f"loras: method `sum` needs weights that add up to more than 0, not {total:g}; take concat")
    ranks = {len(tensors[DOWN]) for _, tensors, _ in given}
    if len(ranks) > 1:
        names = ", ".join(f"{name} has rank {len(tensors[DOWN])}" for _, tensors, name in given)
        raise ValueError(f"method `sum` needs equal ranks: {names}; take concat or svd")
    down = torch.stack([weight * tensors[DOWN].flatten(1) for weight, tensors, _ in given]).sum(0)
    up = torch.stack([weight * tensors[UP].flatten(1) for weight, tensors, _ in given]).sum(0)
    return down / total**0.5, up / total**0.5


def _combine_layer(
    given: Sequence[Weighted], method: str, rank: int | None, energy: float, name: str, done: Combined
) -> dict[str, Tensor]:
    """The tensors of one layer of the result."""
    products = all(DOWN in tensors for _, tensors, _ in given)
    like = next((tensors for _, tensors, _ in given if DOWN in tensors or "diff" in tensors), None)
    shape = _common_shape(given) if like is not None else _kronecker_shape(given)
    if not products and (method != "svd" or len(shape) == 1):
        return {"diff": _sum_changes(given, shape)}
    if method == "svd":
        cut = _cut(given, products, shape, rank, energy)
        done.kept[name] = cut.kept
        down, up = cut.down, cut.up
    elif method == "sum":
        down, up = mean_factors(given)
        exact = concatenate(given)
        done.errors[name] = _distance((down, up), exact)
    else:
        down, up = concatenate(given)
    size = len(down)
    return {DOWN: down.reshape(size, *shape[1:]), UP: up.reshape(shape[0], size, *(1,) * (len(shape) - 2))}


def _cut(given: Sequence[Weighted], products: bool, shape: tuple[int, ...], rank: int | None, energy: float) -> Cut:
    if products:
        return cut_product(*concatenate(given), rank, energy)
    whole = _sum_changes(given, shape).flatten(1)
    if rank is None or energy < 1:
        return cut_matrix(whole, rank, energy)
    found = largest(whole, rank)
    total = float(whole.double().square().sum())
    return Cut(*found.factors(), float(found.s.double().square().sum()) / total if total else 1.0)


def _sum_changes(given: Sequence[Weighted], shape: tuple[int, ...]) -> Tensor:
    whole = given[0][0] * change(given[0][1], shape)
    for weight, tensors, _ in given[1:]:
        whole += weight * change(tensors, shape)
    return whole


def _distance(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> float:
    """|B A - B' A'| / |B' A'| in the Frobenius norm, without the products themselves."""
    down, up = torch.cat([found[0], exact[0]]), torch.cat([found[1], -exact[1]], dim=1)
    size = _norm(*exact)
    return _norm(down, up) / size if size else 0.0


def _norm(down: Tensor, up: Tensor) -> float:
    """The Frobenius norm of `up @ down`."""
    down, up = down.double(), up.double()
    return float(((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt())


def _common_shape(given: Sequence[Weighted]) -> tuple[int, ...]:
    shapes = {shape_of(tensors): name for _, tensors, name in given if DOWN in tensors or "diff" in tensors}
    if len(shapes) > 1:
        told = ", ".join(f"{name} changes a weight of {list(shape)}" for shape, name in shapes.items())
        raise ValueError(f"the files belong to other models: {told}")
    return next(iter(shapes))


def _kronecker_shape(given: Sequence[Weighted]) -> tuple[int, ...]:
    """The shape of a weight that only LoKr and LoHa change."""
    tensors = given[0][1]
    if "hada_w1_a" in tensors:
        return (len(tensors["hada_w1_a"]), tensors["hada_w1_b"].shape[1])
    left = tensors["lokr_w1"] if "lokr_w1" in tensors else tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]
    if "lokr_w2" in tensors:
        right = tuple(tensors["lokr_w2"].shape)
    else:
        right = (len(tensors["lokr_w2_a"]), *tensors["lokr_w2_b"].shape[1:])
    return (left.shape[0] * right[0], left.shape[1] * right[1], *right[2:])


def _refuse(given: Sequence[Weighted], method: str) -> None:
    for _, tensors, name in given:
        kind = kind_of(tensors)
        if kind == "dora":
            raise ValueError(f"{name} is DoRA, whose updates depend on the base and do not add up: merge it into one")
        if kind in ("lokr", "loha") and method != "svd":
            raise ValueError(f"{name} is {kind}, which has no two factors: take method svd with a rank")
