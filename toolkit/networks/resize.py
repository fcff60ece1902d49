"""Low-rank matrices of another rank: padded, cut by singular values, or factored from a whole matrix."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.networks.svd import exact


def resize_rank(down: Tensor, up: Tensor, fresh: Tensor) -> tuple[Tensor, Tensor]:
    """(down, up) with the rank of `fresh`, an untrained `down`: `up @ down` is kept, or its nearest of lower rank.

    down: [r, n], up: [m, r], fresh: [R, n]; rows that are added start as `fresh` has them, their columns at zero.
    """
    rank, wanted = len(down), len(fresh)
    if wanted >= rank:
        return torch.cat([down, fresh[rank:].to(down)]), torch.nn.functional.pad(up, (0, wanted - rank))
    q_up, inner, q_down = _core(down, up)
    cut_down, cut_up = factor(inner, wanted)
    return cut_down @ q_down.T, q_up @ cut_up


class Cut(NamedTuple):
    """A product of lower rank."""

    down: Tensor
    up: Tensor
    kept: float
    """Share of the energy, the squared singular values, that is left."""


def cut_product(down: Tensor, up: Tensor, rank: int | None = None, energy: float = 1.0) -> Cut:
    """The nearest product to `up @ down` [m, n] of a rank of at most `rank` that keeps at least `energy` of it.

    Nearest in the Frobenius norm (Eckart and Young, 1936); both limits hold, and where they disagree `rank` wins.
    """
    q_up, inner, q_down = _core(down, up)
    cut = cut_matrix(inner, rank, energy)
    return Cut(cut.down @ q_down.T, q_up @ cut.up, cut.kept)


def cut_matrix(matrix: Tensor, rank: int | None = None, energy: float = 1.0) -> Cut:
    """The same for a matrix [m, n] that is there as a whole."""
    whole = exact(matrix)
    shares = whole.s.double().square().cumsum(0)
    total = float(shares[-1])
    # what is left out by rounding alone is no loss
    enough = int((shares < total * min(energy, 1 - 1e-12)).sum()) + 1 if total else 1
    size = min(enough, rank or enough, len(shares))
    return Cut(*whole.cut(size).factors(), float(shares[size - 1]) / total if total else 1.0)


def _core(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(Q, M, P) with `up @ down` = Q M P^T: the product can be very large, and M has its singular values."""
    q_up, r_up = torch.linalg.qr(up)
    q_down, r_down = torch.linalg.qr(down.T)
    return q_up, r_up @ r_down.T, q_down


def factor(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(down [rank, n], up [m, rank]) with `up @ down` nearest to `matrix` [m, n]; singular values shared by both."""
    down, up = exact(matrix).cut(rank).factors()
    missing = rank - len(down)
    return torch.nn.functional.pad(down, (0, 0, 0, missing)), torch.nn.functional.pad(up, (0, missing))
