"""The singular values of large matrices, and how many of them are worth keeping. Owner of no files and no layers."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Mode = Literal["fixed", "threshold", "ratio", "quantile"]

OVERSAMPLES = 16
"""Directions that the randomized decomposition looks at beside those that are kept."""
ITERATIONS = 4
"""Power iterations; the differences of fine-tunes have spectra that fall slowly."""
SMALL_SHARE = 0.25
"""Up to this share of all singular values, looking for the largest ones is quicker than finding all."""


class Decomposition(NamedTuple):
    """A matrix [m, n], or its nearest one of rank r: `(u * s) @ v`."""

    u: Tensor
    """[m, r], orthonormal columns."""
    s: Tensor
    """[r], falling."""
    v: Tensor
    """[r, n], orthonormal rows."""

    def cut(self, rank: int) -> Decomposition:
        """The `rank` largest singular values."""
        return Decomposition(self.u[:, :rank], self.s[:rank], self.v[:rank])

    def factors(self) -> tuple[Tensor, Tensor]:
        """(down [r, n], up [m, r]) with `up @ down` the matrix; the singular values are shared by both."""
        root = self.s.sqrt()
        return root[:, None] * self.v, self.u * root


def largest(matrix: Tensor, rank: int, seed: int = 0) -> Decomposition:
    """The `rank` largest singular values of `matrix` [m, n]; randomized where that is quicker, else exact."""
    smaller = min(matrix.shape)
    if rank + OVERSAMPLES > SMALL_SHARE * smaller:
        return exact(matrix).cut(rank)
    return randomized(matrix, rank, seed)


def exact(matrix: Tensor) -> Decomposition:
    """All singular values of `matrix` [m, n]."""
    return Decomposition(*torch.linalg.svd(matrix, full_matrices=False))


def randomized(matrix: Tensor, rank: int, seed: int = 0) -> Decomposition:
    """The `rank` largest singular values by subspace iteration: Halko, Martinsson, Tropp (2011), algorithms 4.4, 5.1.

    The random directions follow from `seed` and are the same on every device.
    """
    count = min(rank + OVERSAMPLES, *matrix.shape)
    rng = torch.Generator().manual_seed(seed)
    directions = torch.randn(matrix.shape[1], count, generator=rng).to(matrix)
    q = torch.linalg.qr(matrix @ directions).Q
    for _ in range(ITERATIONS):
        # without this orthogonalization, rounding would leave nothing but the largest direction
        z = torch.linalg.qr(matrix.T @ q).Q
        q = torch.linalg.qr(matrix @ z).Q
    small = exact(q.T @ matrix)
    return Decomposition(q @ small.u, small.s, small.v).cut(rank)


def choose_rank(values: Tensor, mode: Mode, number: float) -> int:
    """How many of the falling singular `values` [k] to keep, at least one and none that is rounding.

    fixed: `number` of them; threshold: those above `number`; ratio: those above `number` times the largest; quantile:
    the fewest whose sum is at least `number` times the sum of all.
    """
    # some devices have no double precision
    found = values.cpu().double()
    real = int((found > found[0] * torch.finfo(values.dtype).eps * math.sqrt(len(found))).sum())
    if mode == "fixed":
        rank = int(number)
    elif mode == "quantile":
        sums = found.cumsum(0)
        rank = int((sums < number * sums[-1] * (1 - 1e-9)).sum()) + 1
    else:
        least = number if mode == "threshold" else number * float(found[0])
        rank = int((found > least).sum())
    return max(1, min(rank, len(found) if mode == "fixed" else real))
