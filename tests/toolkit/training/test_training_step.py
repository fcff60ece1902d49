"""The loss of a batch, with families whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.models.conditions import Conditions
from toolkit.models.family import Facts
from toolkit.models.flow import linear_mu
from toolkit.training.batch import Batch
from toolkit.training.draws import draw
from toolkit.training.path import Path
from toolkit.training.step import sample_means, step_loss
from toolkit.training.times import Times, bell

FACTS = Facts(channels=4, stride=8, multiple=16, base_model="x")
SHAPE = (4, 6, 8)


class Constant:
    """A family that answers the same everywhere, and remembers what it was asked."""

    def __init__(self, answer: float = 0.0, facts: Facts = FACTS) -> None:
        self.answer, self.facts = answer, facts
        self.noisy, self.t = torch.empty(0), torch.empty(0)

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        self.noisy, self.t = noisy, t
        return torch.full_like(noisy, self.answer, dtype=torch.bfloat16)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"mu": linear_mu(shape[-2] * shape[-1] // 4, self.facts.scheduler)}


def batch_of(count: int = 3, shape: tuple[int, ...] = SHAPE, **cond: Tensor) -> Batch:
    u, noise = draw(range(count), shape)
    latents = torch.randn(count, *shape, generator=torch.Generator().manual_seed(9))
    return Batch(latents, Conditions(cond), torch.ones(count), u, noise)


def loss(family: Constant, batch: Batch, times: Times) -> Tensor:
    return step_loss(family, batch, Path.of(family.facts), times)  # type: ignore[arg-type]


def test_it_is_the_mean_square_of_what_is_missing():
    batch = batch_of()
    found = loss(Constant(), batch, Times("linear"))
    assert found.shape == () and found.dtype == torch.float32
    torch.testing.assert_close(found, (batch.noise - batch.latents).square().mean())
    wanted = (0.5 - (batch.noise - batch.latents)).square().mean()
    torch.testing.assert_close(loss(Constant(0.5), batch, Times("linear")), wanted)


def test_the_network_sees_the_path_at_the_drawn_times():
    batch, family = batch_of(), Constant()
    loss(family, batch, Times("linear"))
    assert torch.equal(family.t, 1 - batch.u) and family.t.dtype == torch.float64
    t = family.t.float()[:, None, None, None]
    torch.testing.assert_close(family.noisy, (1 - t) * batch.latents + t * batch.noise)


def test_the_familys_own_shift_shifts_the_times():
    scheduler = {"use_dynamic_shifting": True}
    batch, family = batch_of(), Constant(facts=replace(FACTS, scheduler=scheduler))
    loss(family, batch, Times("shift"))
    wanted = Times("shift").draw(batch.u, linear_mu(6 * 8 // 4, scheduler))
    assert torch.equal(family.t, wanted)


def test_samples_count_by_their_weight():
    batch = batch_of()
    weights = torch.tensor([2.0, 0.0, 0.5])
    each = sample_means((batch.noise - batch.latents).square())
    found = loss(Constant(), replace(batch, weight=weights), Times("linear"))
    torch.testing.assert_close(found, (each * weights).mean())


@pytest.mark.parametrize("shape", [(4, 6, 8), (4, 3, 6, 8)])
def test_places_count_by_the_mask(shape: tuple[int, ...]):
    batch = batch_of(2, shape)
    mask = torch.zeros(2, 1, *[1] * (len(shape) - 3), 6, 8)
    # the whole of the first sample, and of the second one its right half, twice
    mask[0], mask[1, ..., 4:] = 1, 2
    error = (batch.noise - batch.latents).square()
    wanted = (error[0].mean() + error[1, ..., 4:].mean()) / 2
    torch.testing.assert_close(loss(Constant(), replace(batch, mask=mask), Times("linear")), wanted)
    whole = replace(batch, mask=torch.ones_like(mask))
    torch.testing.assert_close(loss(Constant(), whole, Times("linear")), loss(Constant(), batch, Times("linear")))


def test_a_mask_does_not_reach_given_frames():
    shape, given = (4, 3, 6, 8), torch.full((2, 4, 1, 6, 8), 7.0)
    mask = torch.zeros(2, 1, 1, 6, 8)
    mask[..., :4] = 2
    batch = batch_of(2, shape, given=given)
    found = loss(Constant(), replace(batch, mask=mask), Times("linear"))
    torch.testing.assert_close(found, (batch.noise - batch.latents)[:, :, 1:, :, :4].square().mean())


def test_times_count_by_their_weight():
    batch = batch_of()
    each = sample_means((batch.noise - batch.latents).square())
    torch.testing.assert_close(loss(Constant(), batch, Times("weighted")), (each * bell(1 - batch.u)).mean().float())


def test_two_halves_equal_the_whole():
    batch = batch_of(4)
    halves = [
        replace(batch, latents=batch.latents[i], noise=batch.noise[i], u=batch.u[i], weight=batch.weight[i])
        for i in (slice(0, 2), slice(2, 4))
    ]
    parts = [loss(Constant(), half, Times()) for half in halves]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(Constant(), batch, Times()))


def test_given_frames_are_shown_clean_and_left_out():
    shape = (4, 3, 6, 8)
    given = torch.full((2, 4, 1, 6, 8), 7.0)
    batch, family = batch_of(2, shape, given=given), Constant()
    found = loss(family, batch, Times("linear"))
    assert (family.noisy[:, :, 0] == 7).all() and not (family.noisy[:, :, 1:] == 7).any()
    torch.testing.assert_close(found, (batch.noise - batch.latents)[:, :, 1:].square().mean())


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_other_predictions_have_other_targets(prediction: str):
    facts = replace(FACTS, prediction=prediction)
    batch, family = batch_of(), Constant(facts=facts)
    found, path = loss(family, batch, Times("linear")), Path.of(facts)
    torch.testing.assert_close(found, path.wanted(batch.latents, batch.noise, family.t).square().mean())
    assert torch.equal(family.t * 1000, (family.t * 1000).round())


def test_a_batch_moves_as_fp32_but_its_times_stay():
    batch = batch_of(text=torch.zeros(3, 2, 5, dtype=torch.bfloat16), ids=torch.zeros(3, 2, dtype=torch.int64))
    moved = replace(batch, latents=batch.latents.bfloat16()).to(torch.device("cpu"))
    assert moved.latents.dtype == moved.cond["text"].dtype == torch.float32
    assert moved.cond["ids"].dtype == torch.int64 and moved.u is batch.u and len(moved) == 3
