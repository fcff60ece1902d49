"""Whose turn it is, and the times that are drawn for one of several experts."""

from __future__ import annotations

import math

import pytest
import torch

from toolkit.models.family import Trainable
from toolkit.training.experts import Experts
from toolkit.training.times import Times, reach

HIGH = Trainable("transformer", "", "transformer.", "_high_noise", (0.875, 1.0))
LOW = Trainable("transformer_2", "", "transformer.", "_low_noise", (0.0, 0.875))
MU = math.log(3.0)
U = torch.rand(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_experts_take_turns_by_the_step_alone():
    experts = Experts([HIGH, LOW], every=3)
    turns = [experts.active(step) for step in range(8)]
    assert turns == [HIGH] * 3 + [LOW] * 3 + [HIGH] * 2
    assert Experts([LOW]).active(5) is LOW
    assert Experts([]).active(5) is None and Experts([]).times(Times(), 5) == Times()


@pytest.mark.parametrize("emphasis", ["balanced", "content", "style"])
@pytest.mark.parametrize("kind", ["linear", "sigmoid", "shift"])
def test_times_of_an_expert_are_those_of_the_whole_that_fall_to_it(kind: str, emphasis: str):
    whole = Times(kind, emphasis)
    everywhere = whole.draw(U, MU)
    for expert in (HIGH, LOW):
        own = Experts([expert]).times(whole, 0).draw(U, MU)
        low, high = expert.times
        assert low <= own.min() and own.max() < math.nextafter(high, 2)
        picked = everywhere[(everywhere >= low) & (everywhere < high)]
        # the same distribution: Kolmogorov and Smirnov's distance of two samples
        grid = torch.linspace(low, high, 200, dtype=torch.float64)
        shares = [(sample[None] < grid[:, None]).double().mean(dim=1) for sample in (own, picked)]
        assert (shares[0] - shares[1]).abs().max() < 1.7 / len(picked) ** 0.5


def test_no_time_falls_to_the_other_expert():
    ends = torch.tensor([0.0, 1e-12, 1 - 1e-12, math.nextafter(1, 0)], dtype=torch.float64)
    for kind in ("linear", "sigmoid", "shift"):
        assert (Experts([HIGH]).times(Times(kind), 0).draw(ends, MU) >= 0.875).all()
        assert (Experts([LOW]).times(Times(kind), 0).draw(ends, MU) < 0.875).all()


def test_denoising_steps_limit_the_times_of_an_expert_too():
    times = Experts([HIGH]).times(Times("linear", low=0.05, high=0.5), 0)
    drawn = times.draw(U)
    assert drawn.min() >= 0.875 and drawn.max() <= 0.95
    times.check()


def test_an_expert_without_any_time_is_an_error():
    times = Experts([HIGH]).times(Times("linear", low=0.5), 0)
    with pytest.raises(ValueError, match=r"max_denoising_steps and timestep_type leave nothing .* 0\.875 to 1"):
        times.check()


def test_the_first_step_of_few_belongs_to_the_expert_for_noise():
    one_step = Experts([HIGH]).times(Times("one_step"), 0)
    one_step.check()
    assert (one_step.draw(U) == 1).all()
    with pytest.raises(ValueError, match="leave nothing"):
        Experts([LOW]).times(Times("one_step"), 0).check()
    assert (Experts([LOW]).times(Times("two_step"), 0).draw(U) == 0.5).all()


def test_without_experts_nothing_changes():
    assert Experts([Trainable("unet", "", "unet.")]).times(Times(), 9) == Times()
    assert torch.equal(Times("linear").draw(U), 1 - U)


def test_the_reach_is_found_once():
    times = Experts([HIGH]).times(Times("linear"), 0)
    reach.cache_clear()
    for _ in range(3):
        times.draw(U[:4])
    assert reach.cache_info().misses == 1
    assert reach(times, 0.0) == pytest.approx((0.0, 0.125), abs=1e-12)
