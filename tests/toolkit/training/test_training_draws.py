"""Random numbers belong to the sample, not to the batch it is in."""

from __future__ import annotations

import torch

from toolkit.training.draws import draw

SHAPE = (4, 6, 8)


def test_numbers_do_not_depend_on_the_batch():
    u, noise = draw([7, 8, 9], SHAPE)
    for seeds in ([8], [9, 8], [1, 2, 8, 3]):
        place = seeds.index(8)
        other_u, other_noise = draw(seeds, SHAPE)
        assert other_u[place] == u[1] and torch.equal(other_noise[place], noise[1])


def test_seeds_give_different_numbers():
    u, noise = draw(range(50), SHAPE)
    assert len(set(u.tolist())) == 50
    assert torch.pdist(noise.flatten(1)).min() > 10


def test_shapes_types_and_distribution():
    u, noise = draw(range(400), SHAPE)
    assert u.shape == (400,) and u.dtype == torch.float64 and u.min() >= 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 0.05 and abs(u.std() - 12**-0.5) < 0.03
    assert noise.shape == (400, *SHAPE) and noise.dtype == torch.float32
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01


def test_time_and_noise_are_independent_of_the_global_generator():
    torch.manual_seed(1)
    first = draw([5], SHAPE)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = draw([5], SHAPE)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert torch.equal(before, torch.get_rng_state())
