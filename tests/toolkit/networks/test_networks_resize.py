"""Matrices of another rank: equal where the rank suffices, nearest where it does not."""

from __future__ import annotations

import torch

from toolkit.networks.resize import factor, resize_rank

RNG = torch.Generator().manual_seed(0)
DOWN, UP = torch.randn(3, 7, generator=RNG), torch.randn(5, 3, generator=RNG)


def test_a_higher_rank_keeps_the_product_and_can_learn():
    fresh = torch.randn(6, 7, generator=RNG)
    down, up = resize_rank(DOWN, UP, fresh)
    assert down.shape == (6, 7) and up.shape == (5, 6)
    torch.testing.assert_close(up @ down, UP @ DOWN)
    assert torch.equal(down[3:], fresh[3:]) and not up[:, 3:].any()


def test_a_lower_rank_is_the_nearest_product():
    down, up = resize_rank(DOWN, UP, torch.zeros(2, 7))
    u, s, v = torch.linalg.svd(UP @ DOWN)
    torch.testing.assert_close(up @ down, u[:, :2] * s[:2] @ v[:2])
    torch.testing.assert_close(down @ down.T, torch.diag(s[:2]), msg="shared by both")


def test_a_whole_matrix_is_factored():
    matrix = UP @ DOWN
    for rank in (3, 4, 6):
        down, up = factor(matrix, rank)
        assert down.shape == (rank, 7) and up.shape == (5, rank)
        torch.testing.assert_close(up @ down, matrix)
