"""What is made of latents and shots, and the sampler's own step, with families whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from toolkit.models.conditions import Conditions
from toolkit.models.family import Facts
from toolkit.training import scaling
from toolkit.training.batch import Batch
from toolkit.training.draws import draw
from toolkit.training.objective import Objective
from toolkit.training.own_step import after_own_step, next_time
from toolkit.training.path import Path
from toolkit.training.step import aim, step_losses
from toolkit.training.times import Times

SHAPES = [(4, 6, 8), (4, 3, 6, 8)]


class Knowing:
    """A family that knows the noise of a batch: its answers are off by `bias`."""

    def __init__(self, batch: Batch, prediction: str = "flow", bias: float = 0.0) -> None:
        self.facts = Facts(channels=4, stride=8, multiple=16, base_model="x", prediction=prediction)
        self.batch, self.bias, self.asked = batch, bias, 0

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        self.asked += 1
        weight = torch.ones((), requires_grad=True)
        wanted = Path.of(self.facts).wanted(self.batch.latents, self.batch.noise, t)
        return (wanted + self.bias) * weight

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        return {}


def batch_of(shape: tuple[int, ...] = SHAPES[0], count: int = 3) -> Batch:
    u, noise = draw(range(count), shape)
    latents = 2 * torch.randn(count, *shape, generator=torch.Generator().manual_seed(1)) + 1
    return Batch(latents, Conditions({}), torch.ones(count), u, noise)


@pytest.mark.parametrize("shape", SHAPES)
def test_latents_are_scaled_per_sample_and_channel(shape: tuple[int, ...]):
    x = batch_of(shape).latents
    flat = x.numpy().reshape(3, 4, -1)
    mean, std = flat.mean(axis=2, keepdims=True), flat.std(axis=2, ddof=1, keepdims=True)
    wanted = {
        scaling.standardized: (flat - mean) / std,
        scaling.of_unit_deviation: flat / std,
        scaling.multiplied(0.5): flat / 2,
    }
    for scale, expected in wanted.items():
        np.testing.assert_allclose(scale(x).numpy().reshape(3, 4, -1), expected, rtol=1e-4, atol=1e-5)


def test_pairs_are_scaled_alike_and_nothing_else():
    batch = batch_of()
    batch = replace(batch, pair_latents=batch.latents + 1)
    found = scaling.prepared_by([scaling.multiplied(2.0), scaling.multiplied(3.0)])(batch)
    torch.testing.assert_close(found.latents, batch.latents * 6)
    assert found.pair_latents is not None and batch.pair_latents is not None
    torch.testing.assert_close(found.pair_latents, batch.pair_latents * 6)
    assert found.noise is batch.noise and found.u is batch.u


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v"])
def test_what_is_shown_and_asked_for_is_bent(prediction: str):
    batch, path = batch_of(), Path(prediction, {})
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    family: Any = Knowing(batch, prediction)
    straight = aim(batch, path, t, batch.noise)
    found = scaling.bent(noisy=0.9, target_noise=1.2)(family, straight)
    torch.testing.assert_close(found.noisy, 0.9 * straight.noisy)
    torch.testing.assert_close(found.wanted, path.wanted(batch.latents, 1.2 * batch.noise, t))
    if prediction == "flow":
        found = scaling.bent(amplification=0.5)(family, straight)
        gains = torch.tensor([1.4, 1.25, 1.1])[:, None, None, None]
        torch.testing.assert_close(found.wanted, batch.noise - gains * batch.latents)
        assert torch.equal(found.noisy, straight.noisy)


def test_given_frames_stay_as_they_are():
    batch = batch_of(SHAPES[1])
    batch = replace(batch, cond=Conditions({"given": torch.full((3, 4, 1, 6, 8), 7.0)}))
    shot = aim(batch, Path("flow", {}), batch.u, batch.noise)
    family: Any = Knowing(batch)
    assert (scaling.bent(noisy=0.5)(family, shot).noisy[:, :, 0] == 7).all()
    assert (after_own_step(4)(family, replace(shot, t=torch.full_like(shot.t, 0.75))).noisy[:, :, 0] == 7).all()


@pytest.mark.parametrize("mu", [0.0, 1.2])
def test_the_next_time_is_that_of_the_sampler(mu: float):
    sampled = [math.exp(mu) / (math.exp(mu) + 1 / p - 1) for p in (1, 0.75, 0.5, 0.25)]
    t = torch.tensor(sampled[:3], dtype=torch.float64)
    torch.testing.assert_close(next_time(t, mu, 4), torch.tensor(sampled[1:], dtype=torch.float64))
    drawn = Times("next_sample", num_steps=4).draw(torch.linspace(0, 0.999, 60, dtype=torch.float64), mu)
    assert sorted(set(drawn.tolist()), reverse=True) == pytest.approx(sampled[:3])


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v"])
def test_a_model_that_errs_has_to_make_up_for_it(prediction: str):
    batch, path = batch_of(), Path(prediction, {})
    t = torch.full((3,), 0.75, dtype=torch.float64)
    shot = aim(batch, path, t, batch.noise)
    knowing: Any = Knowing(batch, prediction)
    right = after_own_step(4)(knowing, shot)
    torch.testing.assert_close(right.wanted, path.wanted(batch.latents, batch.noise, right.t), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(right.noisy, path.noisy(batch.latents, batch.noise, right.t), rtol=1e-3, atol=1e-3)
    assert right.t.tolist() == [0.5] * 3 and not right.wanted.requires_grad
    biased: Any = Knowing(batch, prediction, bias=0.5)
    wrong = after_own_step(4)(biased, shot)
    if prediction == "flow":
        # a quarter of a step with 0.5 too much, made up for in the half that is left
        torch.testing.assert_close(wrong.wanted - right.wanted, torch.full_like(wrong.wanted, -0.25 * 0.5 / 0.5))
    # following the target to the end leads to the picture
    torch.testing.assert_close(path.clean(wrong.noisy, wrong.wanted, wrong.t), batch.latents, rtol=1e-3, atol=1e-3)


def test_a_step_asks_the_network_twice_then():
    batch = batch_of()
    family: Any = Knowing(batch)
    objective = Objective(Path("flow", {}), Times("next_sample", num_steps=4), adjust=after_own_step(4))
    (loss,) = step_losses(family, batch, objective)
    assert family.asked == 2 and loss.requires_grad and loss.item() == pytest.approx(0, abs=1e-8)


def test_no_sample_loses_more_than_the_limit():
    batch = batch_of()
    batch = replace(batch, weight=torch.tensor([1.0, 4.0, 100.0]))
    family: Any = Knowing(batch, bias=1.0)
    (loss,) = step_losses(family, batch, Objective(Path("flow", {}), Times("linear"), max_loss=2.0))
    assert loss.item() == pytest.approx((1 + 2 + 2) / 3)
