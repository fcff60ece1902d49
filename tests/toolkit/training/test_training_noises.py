"""Noise rules against numbers that are worked out apart from them; random numbers belong to the sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from toolkit.data.rng import seed_for
from toolkit.models.conditions import Conditions
from toolkit.training import noises
from toolkit.training.batch import Batch
from toolkit.training.draws import PLAIN_DRAWS, Draws, add_levels, draw

SHAPES = [(4, 6, 8), (4, 3, 6, 8)]
EVERYTHING = Draws(
    levels=3, candidates=3, normals=("offset", "signal", "neighbor", "shift", "factor"), uniforms=("blur",)
)


def seeds(*names: str):
    return lambda epoch, purpose: [seed_for(1, epoch, name, purpose) for name in names]


def batch_of(shape: tuple[int, ...], draws: Draws = EVERYTHING, names: str = "abc", is_reg: bool = False) -> Batch:
    u, noise, more = draws.make(seeds(*names), 0, shape)
    latents = torch.randn(len(names), *shape, generator=torch.Generator().manual_seed(3)) + 0.3
    return Batch(latents, Conditions({}), torch.ones(len(names)), u, noise, is_reg=is_reg, draws=more)


def spread(numbers: Tensor, like: Tensor) -> np.ndarray:
    """[B] or [B, C] repeated to the shape of `like`, without broadcasting."""
    flat = [np.full(like[i].shape, n) if np.ndim(n) == 0 else
            np.stack([np.full(like[i, c].shape, m) for c, m in enumerate(n)])
            for i, n in enumerate(numbers.numpy())]  # fmt: skip
    return np.stack(flat)


@pytest.mark.parametrize("shape", SHAPES)
def test_rules_of_one_number_per_channel(shape: tuple[int, ...]):
    batch = batch_of(shape)
    e, x, more = batch.noise.numpy(), batch.latents.numpy(), batch.draws
    n = {name: spread(more[name], batch.latents) for name in EVERYTHING.normals}
    means = np.stack([np.stack([np.full(plane.shape, plane.mean()) for plane in sample]) for sample in x])
    wanted = {
        noises.offset_by(0.1): e + 0.1 * n["offset"],
        noises.toward_mean: e + means / 2,
        noises.times(1.5): 1.5 * e,
        noises.with_signal(0.5): e + 0.5 * n["signal"] * x,
        noises.with_neighbor(0.2): e + 0.2 * n["neighbor"] * np.stack([x[2], x[0], x[1]]),
        noises.shifted_by(0.3): e + 0.3 * n["shift"],
        noises.scaled_by(0.4): e * np.exp(0.4 * n["factor"]),
    }
    for rule, expected in wanted.items():
        np.testing.assert_allclose(rule(batch.noise, batch).numpy(), expected, rtol=1e-5, atol=1e-6)
    both = noises.changed_by([noises.times(2.0), noises.shifted_by(0.3)])(batch)
    np.testing.assert_allclose(both.numpy(), 2 * e + 0.3 * n["shift"], rtol=1e-5, atol=1e-6)


def test_who_is_left_alone():
    one, reg = batch_of(SHAPES[0], names="a"), batch_of(SHAPES[0], is_reg=True)
    assert torch.equal(noises.with_neighbor(1.0)(one.noise, one), one.noise)
    assert torch.equal(noises.toward_mean(reg.noise, reg), reg.noise)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_closest_noise_is_taken(shape: tuple[int, ...]):
    batch = batch_of(shape)
    found = noises.closest(batch.noise, batch)
    for i, x in enumerate(batch.latents.numpy()):
        candidates = [batch.noise[i].numpy(), *batch.draws["candidates"][i].numpy()]
        best = min(candidates, key=lambda e: float(((e - x) ** 2).sum()))
        np.testing.assert_array_equal(found[i].numpy(), best)
    assert not torch.equal(found, batch.noise)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 2, 8, 8)])
def test_blurring_keeps_what_is_smooth(shape: tuple[int, ...]):
    flat = torch.full((1, *shape), 3.0)
    torch.testing.assert_close(noises.blur(flat), flat)
    # cells of 4x4 with one number each: an edge between left and right, which blurring makes a slope
    edge = torch.zeros(1, *shape)
    edge[..., 4:] = 1
    row = noises.blur(edge)[0, 0].reshape(-1, 8)[0].tolist()
    assert row == pytest.approx([0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1])
    batch = batch_of(shape, names="a")
    b = 2 * float(batch.draws["blur"])
    expected = batch.noise + b * (noises.blur(batch.latents) - batch.latents)
    torch.testing.assert_close(noises.blurred(batch.noise, batch), expected)


def test_by_default_the_numbers_are_those_of_the_stream():
    u, noise, more = PLAIN_DRAWS.make(seeds("a", "b"), 4, SHAPES[0])
    wanted = draw([seed_for(1, 4, name, "noise") for name in "ab"], SHAPES[0])
    assert torch.equal(u, wanted[0]) and torch.equal(noise, wanted[1]) and more == {}


@pytest.mark.parametrize("draws", [EVERYTHING, Draws(lasting=True, levels=2, candidates=2, normals=("shift",))])
def test_further_numbers_belong_to_the_sample(draws: Draws):
    u, noise, more = draws.make(seeds("a", "b", "c"), 2, SHAPES[0])
    for names in (["b"], ["c", "b"], ["x", "y", "b", "a"]):
        place = names.index("b")
        other_u, other_noise, other = draws.make(seeds(*names), 2, SHAPES[0])
        assert other_u[place] == u[1] and torch.equal(other_noise[place], noise[1])
        assert other.keys() == more.keys()
        assert all(torch.equal(other[name][place], more[name][1]) for name in more)


def test_consistent_noise_is_the_same_at_every_visit():
    lasting, passing = Draws(lasting=True, candidates=2, levels=2), Draws(candidates=2, levels=2)
    first, second = (lasting.make(seeds("a", "b"), epoch, SHAPES[0]) for epoch in (1, 2))
    assert torch.equal(first[1], second[1]) and torch.equal(first[2]["candidates"], second[2]["candidates"])
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(passing.make(seeds("a"), 1, SHAPES[0])[1], passing.make(seeds("a"), 2, SHAPES[0])[1])


@pytest.mark.parametrize("shape", [(4, 32, 32), (4, 2, 32, 32)])
def test_multiresolution_noise_has_deviation_one_and_large_shapes(shape: tuple[int, ...]):
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = add_levels(noise, 6, 0.8, torch.Generator().manual_seed(1))
    assert found.shape == shape and found.std().item() == pytest.approx(1, abs=1e-5)
    # a mean over 8x8 cells of white noise has the deviation 1/8
    coarse = [torch.nn.functional.avg_pool2d(x.reshape(-1, 1, 32, 32), 8).std().item() for x in (noise, found)]
    assert coarse[0] == pytest.approx(1 / 8, rel=0.25) and coarse[1] > 2.5 * coarse[0]
    # one level is a second noise of the same size: the sum of both, scaled
    second = torch.Generator().manual_seed(1)
    torch.rand((), generator=second)
    total = noise + torch.randn(1, noise.numel() // 1024, 32, 32, generator=second).view(shape)
    torch.testing.assert_close(add_levels(noise, 1, 0.8, torch.Generator().manual_seed(1)), total / total.std())


def test_all_candidates_have_the_levels():
    plain, levelled = (Draws(candidates=3, levels=levels).make(seeds("a"), 0, SHAPES[0]) for levels in (0, 4))
    noises_of = [torch.cat([made[1][:, None], made[2]["candidates"]], dim=1)[0] for made in (plain, levelled)]
    for before, after in zip(*noises_of, strict=True):
        assert not torch.equal(before, after) and after.std().item() == pytest.approx(1, abs=1e-5)
