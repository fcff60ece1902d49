"""Training times follow their closed forms; emphasis and limits act on the rank in noise; weights have mean 1."""

from __future__ import annotations

import math
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from toolkit.models.flow import flow_steps, linear_mu, training_mu
from toolkit.training.times import QUANTILES as KINDS
from toolkit.training.times import Times, bell, half_bell

U = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
"""Stands for all uniform numbers."""
QUANTILES = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
TOKENS = 1024
DYNAMIC = {"use_dynamic_shifting": True}
LINEAR = {**DYNAMIC, "time_shift_type": "linear"}


class Sampled:
    """As much of a family as decides how its samples are spaced."""

    def __init__(self, scheduler: dict[str, Any]) -> None:
        self.facts = SimpleNamespace(scheduler=scheduler)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        return flow_steps(steps, shape[-2] * shape[-1] // 4, self.facts.scheduler)


def quantiles(times: Times, tokens: int = TOKENS) -> list[float]:
    return torch.quantile(times.draw(U, linear_mu(tokens, DYNAMIC)), QUANTILES).tolist()


def mu(tokens: int) -> float:
    return 0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256)


@pytest.mark.parametrize("kind", ["linear", "weighted", "weighted2"])
def test_uniform(kind: str):
    assert quantiles(Times(kind)) == pytest.approx(QUANTILES.tolist(), abs=1e-3)


def test_sigmoid_is_logit_normal():
    wanted = [1 / (1 + math.exp(-NormalDist().inv_cdf(p))) for p in QUANTILES.tolist()]
    assert quantiles(Times("sigmoid")) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("tokens", [256, TOKENS, 4096])
@pytest.mark.parametrize("kind", ["shift", "flux_shift", "lumina2_shift"])
def test_shift_follows_the_size(kind: str, tokens: int):
    a = math.exp(mu(tokens))
    wanted = [a * p / (1 + (a - 1) * p) for p in QUANTILES.tolist()]
    assert quantiles(Times(kind), tokens) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    "config", [{}, {"shift": 3.0}, {**DYNAMIC, "shift": 3.0}, {**DYNAMIC, "base_shift": 0.9}, LINEAR]
)
def test_shift_is_that_of_the_checkpoints_sampler(config: dict[str, Any]):
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    scheduler.set_timesteps(**flow_steps(8, TOKENS, scheduler.config))
    mu = training_mu(Sampled(dict(scheduler.config)), (16, 64, 64))  # type: ignore[arg-type]
    found = Times("shift").draw(torch.linspace(0, 7 / 8, 8, dtype=torch.float64), mu)
    torch.testing.assert_close(found.float(), scheduler.sigmas[:-1])


def test_content_is_early_noise_and_style_late():
    # rank in noise u^3 (0 is the noisiest), or 1 - u^3
    content, style = (quantiles(Times("linear", emphasis)) for emphasis in ("content", "style"))
    assert content == pytest.approx([1 - (1 - p) ** 3 for p in QUANTILES.tolist()], abs=1e-3)
    assert style == pytest.approx([p**3 for p in QUANTILES.tolist()], abs=1e-3)


@pytest.mark.parametrize("kind", ["sigmoid", "linear", "shift"])
def test_limits_cut_the_rank_in_noise(kind: str):
    everything = Times(kind).draw(U, linear_mu(TOKENS, DYNAMIC))
    noisy, clean = (
        Times(kind, low=low, high=high).draw(U, linear_mu(TOKENS, DYNAMIC)) for low, high in ((0, 0.25), (0.75, 1))
    )
    quarters = torch.quantile(everything, torch.tensor([0.25, 0.75], dtype=torch.float64))
    assert noisy.min() >= quarters[1] - 1e-3 and clean.max() <= quarters[0] + 1e-3
    assert noisy.max() == pytest.approx(everything.max().item(), abs=1e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("emphasis", ["balanced", "content", "style"])
def test_the_ends_are_finite_times(kind: str, emphasis: str):
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    t = Times(kind, emphasis).draw(ends, linear_mu(TOKENS, DYNAMIC))
    assert t.isfinite().all() and t.min() >= 0 and t.max() <= 1 and t.dtype == torch.float64


def test_the_bell_counts_the_middle_most_and_has_mean_one():
    weight = bell(U)
    assert weight.mean().item() == pytest.approx(1, abs=1e-6)
    assert weight.argmax().item() in (9_999, 10_000)
    ends = bell(torch.tensor([0.0, 1.0, 0.3, 0.7], dtype=torch.float64))
    assert ends[:2].abs().max() < 1e-12 and ends[2] == pytest.approx(ends[3].item())


def test_only_weighted_weighs():
    assert torch.equal(Times("weighted").weight(U), bell(U))
    for kind in ("sigmoid", "linear", "shift"):
        assert (Times(kind).weight(U) == 1).all()


def test_the_half_bell_keeps_its_height_at_clean_times():
    weight = half_bell(U)
    assert weight.mean().item() == pytest.approx(1, abs=1e-6)
    clean, noisy = weight[U < 0.5], weight[U >= 0.5]
    assert torch.equal(clean, clean[:1].expand_as(clean)) and (noisy.diff() < 0).all()
    torch.testing.assert_close(noisy / noisy[0], bell(U[U >= 0.5]) / bell(U[U >= 0.5])[0])
    assert torch.equal(Times("weighted2").weight(U), weight)


@pytest.mark.parametrize(("kind", "count"), [("one_step", 1), ("two_step", 2), ("four_step", 4), ("eight_step", 8)])
def test_few_steps_are_drawn_alike(kind: str, count: int):
    times, counts = Times(kind).draw(U).unique(return_counts=True)
    assert times.tolist() == [(step + 1) / count for step in range(count)]
    assert counts.tolist() == [20_000 // count] * count


def test_the_blend_is_one_quarter_uniform_and_log_normal_else():
    # 400 000 normal numbers, cut where t would be less than 0
    z = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = 1 - torch.exp(z / 3) / math.e
    t = t[t >= 0]
    blend = torch.cat([t, (torch.arange(len(t) // 3) + 0.5).double() / (len(t) // 3)])
    assert quantiles(Times("lognorm_blend")) == pytest.approx(torch.quantile(blend, QUANTILES).tolist(), abs=3e-3)


def test_regularization_pictures_have_an_emphasis_of_their_own():
    times = Times("linear", "content", "style")
    assert torch.equal(times.draw(U, is_reg=True), Times("linear", "style").draw(U))
    assert torch.equal(times.draw(U), Times("linear", "content").draw(U))
    same = Times("linear", "content")
    assert torch.equal(same.draw(U, is_reg=True), same.draw(U))
    within = Times("linear", "content", "style", within=(0.5, 1.0)).draw(U, is_reg=True)
    assert within.min() >= 0.5
