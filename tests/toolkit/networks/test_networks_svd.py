"""Singular values: the randomized decomposition against the exact one, and the rank that each mode chooses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toolkit.networks.svd import Mode, choose_rank, exact, largest, randomized


def with_spectrum(values: Tensor, rows: int, columns: int) -> Tensor:
    """A matrix [rows, columns] with these singular values."""
    rng = torch.Generator().manual_seed(1)
    u = torch.linalg.qr(torch.randn(rows, len(values), generator=rng)).Q
    v = torch.linalg.qr(torch.randn(columns, len(values), generator=rng)).Q
    return (u * values) @ v.T


@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
def test_randomized_finds_a_matrix_of_low_rank_exactly(shape: tuple[int, int]) -> None:
    matrix = with_spectrum(torch.tensor([3.0, 2.0, 1.0, 0.5, 1e-2]), *shape)
    down, up = randomized(matrix, 5).factors()
    assert (down.shape, up.shape) == ((5, shape[1]), (shape[0], 5))
    assert (up @ down - matrix).norm() <= 1e-4 * matrix.norm()
    torch.testing.assert_close(randomized(matrix, 2).s, torch.tensor([3.0, 2.0]), rtol=1e-5, atol=0)


def test_randomized_is_near_the_best_that_there_is() -> None:
    falling = with_spectrum(torch.arange(1, 301) ** -0.5, 400, 300)
    matrix = torch.randn(400, 300, generator=torch.Generator().manual_seed(2))
    for whole, share in ((falling, 0.999), (matrix, 0.95)):
        best = exact(whole).s[:8].square().sum()
        assert share * best <= randomized(whole, 8).s.square().sum() <= best * (1 + 1e-5)
    first, again = randomized(matrix, 8), largest(matrix, 8)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True)), "not the same every time"


def test_largest_is_exact_where_many_are_wanted() -> None:
    matrix = torch.randn(40, 30, generator=torch.Generator().manual_seed(3))
    down, up = largest(matrix, 30).factors()
    torch.testing.assert_close(up @ down, matrix, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(largest(matrix, 7).s, exact(matrix).s[:7])


VALUES = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("mode", "number", "rank"),
    [
        ("fixed", 3, 3),
        ("fixed", 64, 5),
        ("threshold", 0, 5),
        ("threshold", 1.5, 3),
        ("threshold", 2, 2),
        ("threshold", 100, 1),
        ("ratio", 0.2, 3),
        ("ratio", 0.5, 1),
        ("ratio", 0, 5),
        ("quantile", 0.5, 1),
        ("quantile", 0.6, 2),
        ("quantile", 0.75, 2),
        ("quantile", 0.76, 3),
        ("quantile", 1, 5),
        ("quantile", 0, 1),
    ],
)
def test_each_mode_chooses_the_rank_that_it_should(mode: Mode, number: float, rank: int) -> None:
    assert choose_rank(VALUES, mode, number) == rank


@pytest.mark.parametrize(("mode", "number"), [("threshold", 0.0), ("ratio", 0.0), ("quantile", 1.0)])
def test_rounding_is_not_taken_for_a_rank(mode: Mode, number: float) -> None:
    spectrum = exact(with_spectrum(VALUES, 60, 50)).s
    assert choose_rank(spectrum, mode, number) == 5
