"""The path between data and noise is that of diffusers' schedulers, and `clean` inverts it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from toolkit.models.family import Facts
from toolkit.training.path import Path

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "scaled_linear": BETAS,
    "linear": {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"},
    "zero_snr": {**BETAS, "rescale_betas_zero_snr": True},
}
INDICES = torch.tensor([0, 1, 250, 998, 999])
T = INDICES.double() / 1000


def pair(count: int = len(INDICES)) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(count, 4, 3, 5, generator=rng), torch.randn(count, 4, 3, 5, generator=rng)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_noise_and_target_are_diffusers(name: str, prediction: str):
    scheduler = DDPMScheduler(**SCHEDULERS[name])
    path, (x, e) = Path(prediction, scheduler.config), pair()
    # sqrt(1 - alpha-bar) of the first step has few digits in diffusers' fp32
    torch.testing.assert_close(path.noisy(x, e, T), scheduler.add_noise(x, e, INDICES), rtol=1e-4, atol=1e-4)
    wanted = e if prediction == "epsilon" else scheduler.get_velocity(x, e, INDICES)
    torch.testing.assert_close(path.wanted(x, e, T), wanted, rtol=1e-4, atol=1e-4)


def test_flow_is_the_straight_line_of_diffusers():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    steps = scheduler.timesteps[[0, 400, 999]]
    path, (x, e) = Path("flow", scheduler.config), pair(3)
    torch.testing.assert_close(path.noisy(x, e, steps.double() / 1000), scheduler.scale_noise(x, steps, e))
    assert torch.equal(path.wanted(x, e, steps / 1000), e - x)


@pytest.mark.parametrize(("prediction", "name"), [("flow", "linear"), ("epsilon", "linear"), ("v", "zero_snr")])
def test_clean_inverts(prediction: str, name: str):
    path, (x, e) = Path(prediction, SCHEDULERS[name]), pair(4)
    t = torch.tensor([0.02, 0.3, 0.6, 0.85], dtype=torch.float64)
    found = path.clean(path.noisy(x, e, t), path.wanted(x, e, t), t)
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-4)


def test_zero_snr_ends_in_pure_noise():
    path, (x, e) = Path("v", SCHEDULERS["zero_snr"]), pair(1)
    last = torch.tensor([0.999], dtype=torch.float64)
    torch.testing.assert_close(path.noisy(x, e, last), e, rtol=0, atol=0)
    torch.testing.assert_close(path.wanted(x, e, last), -x, rtol=0, atol=0)
    a, _ = Path("v", BETAS).coefficients(last, x)
    assert a.item() > 0.05


def test_flow_trains_all_times_and_ddpm_its_grid():
    u = torch.tensor([0.0, 0.4567, 0.9999, 1.0], dtype=torch.float64)
    assert torch.equal(Path("flow", {}).times(u), u)
    assert (Path("v", BETAS).times(u) * 1000).tolist() == [0, 456, 999, 999]


def test_every_index_survives_the_way_through_t():
    grid = torch.arange(1000, dtype=torch.float64) / 1000
    path = Path("epsilon", BETAS)
    assert torch.equal(path.times(grid), grid)


def test_between_two_indices_lies_the_middle():
    path, like = Path("epsilon", BETAS), torch.zeros(3, 1, 1, 1)
    a, s = path.coefficients(torch.tensor([0.5, 0.5005, 0.501], dtype=torch.float64), like)
    squared = a.flatten() ** 2
    assert squared[0] > squared[1] > squared[2]
    torch.testing.assert_close(squared[1], squared[[0, 2]].mean())
    torch.testing.assert_close(a**2 + s**2, torch.ones_like(a))


def test_coefficients_fit_pictures_and_videos():
    for shape in ((2, 4, 3, 3), (2, 4, 5, 3, 3)):
        a, s = Path("flow", {}).coefficients(torch.tensor([0.25, 1.0]), torch.zeros(shape))
        assert a.shape == s.shape == (2,) + (1,) * (len(shape) - 1)
        assert a.flatten().tolist() == [0.75, 0.0] and s.flatten().tolist() == [0.25, 1.0]


def test_the_path_follows_the_facts():
    facts = Facts(channels=4, stride=8, multiple=8, base_model="x", prediction="v", scheduler=SCHEDULERS["zero_snr"])
    assert Path.of(facts).prediction == "v"
    with pytest.raises(ValueError, match="beta_schedule 'squaredcos_cap_v2' is not supported"):
        Path("epsilon", {"beta_schedule": "squaredcos_cap_v2"})
