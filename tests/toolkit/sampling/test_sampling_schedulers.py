"""Samplers by name: every one of them ends at the clean latents if the model knows the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.utils import import_utils
from torch import Tensor

from toolkit.config.checks import has_sampler
from toolkit.models.conditions import Conditions
from toolkit.models.family import Facts
from toolkit.sampling.sample import sample
from toolkit.sampling.schedulers import DIFFUSION, FLOW, make_scheduler
from toolkit.training.path import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # of diffusers by numpy 2
    pytest.mark.filterwarnings("ignore:.algorithm_types dpmsolver:FutureWarning"),
]

FLOW_FACTS = Facts(
    channels=2,
    stride=8,
    multiple=16,
    base_model="x",
    scheduler={"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0},
)
SD = replace(
    FLOW_FACTS,
    prediction="epsilon",
    scheduler={
        "_class_name": "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "steps_offset": 1,
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
        "clip_sample": False,
    },
)


class Oracle:
    """A family that knows where the noise came from."""

    def __init__(self, facts: Facts, x: Tensor, arguments: dict[str, Any] | None = None) -> None:
        self.facts, self.x, self.path, self.arguments = facts, x, Path.of(facts), arguments
        self.inputs: list[Tensor] = []

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        self.inputs.append(noisy)
        a, s = self.path.coefficients(t, noisy)
        e = (noisy - a * self.x) / s
        return self.path.wanted(self.x, e, t)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        return self.arguments or {"num_inference_steps": steps}


def distance(facts: Facts, sampler: str | None, steps: int = 20, arguments: dict[str, Any] | None = None) -> float:
    x = torch.randn(1, 2, 6, 8, generator=torch.Generator().manual_seed(1))
    generators = [torch.Generator().manual_seed(7)]
    noise = torch.randn(1, 2, 6, 8, generator=generators[0])
    family = Oracle(facts, x, arguments)
    found = sample(
        family,
        make_scheduler(facts, sampler),
        noise,
        Conditions({}),
        steps=steps,
        generators=generators,  # type: ignore[arg-type]
    )
    return (found - x).abs().max().item()


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("sampler", DIFFUSION)
def test_every_sampler_of_diffusion_models_ends_at_the_clean_latents(sampler: str, prediction: str):
    """PNDM's, LMS's and DDIM's last step ends at the first noise level, and others end just above 0."""
    if "lms" in sampler:
        pytest.importorskip("scipy")
    names = {"epsilon": "epsilon", "v": "v_prediction"}
    facts = replace(SD, prediction=prediction, scheduler={**SD.scheduler, "prediction_type": names[prediction]})
    assert distance(facts, sampler) < 0.25


def test_the_default_is_the_checkpoints_own():
    assert isinstance(make_scheduler(SD), diffusers.PNDMScheduler)
    own = make_scheduler(FLOW_FACTS, "flowmatch")
    assert isinstance(own, diffusers.FlowMatchEulerDiscreteScheduler) and own.config.shift == 3.0
    assert isinstance(make_scheduler(FLOW_FACTS, "ddpm"), diffusers.FlowMatchEulerDiscreteScheduler)
    assert isinstance(make_scheduler(SD, "flowmatch"), diffusers.PNDMScheduler)


def test_a_sampler_whose_library_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    from diffusers.utils import dummy_torch_and_scipy_objects

    monkeypatch.setattr(diffusers, "LMSDiscreteScheduler", dummy_torch_and_scipy_objects.LMSDiscreteScheduler)
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "scipy", (lambda: False, "{0} requires the scipy library"))
    with pytest.raises(ValueError, match=r"sample.sampler: lms cannot be used here: .*scipy"):
        make_scheduler(SD, "lms")


def test_karras_levels_and_the_checkpoints_betas_are_passed_on():
    scheduler = make_scheduler(SD, "k_euler")
    assert isinstance(scheduler, diffusers.EulerDiscreteScheduler) and scheduler.config.use_karras_sigmas
    assert scheduler.config.beta_start == 0.00085 and not make_scheduler(SD, "euler").config.use_karras_sigmas


@pytest.mark.parametrize("sampler", [None, *FLOW])
@pytest.mark.parametrize("shifts_by_size", [False, True])
def test_every_sampler_of_flow_models_takes_what_a_family_gives(sampler: str | None, shifts_by_size: bool):
    arguments: dict[str, Any] = {"sigmas": np.linspace(1.0, 1 / 20, 20)}
    facts = FLOW_FACTS
    if shifts_by_size:
        arguments["mu"] = 0.8
        facts = replace(facts, scheduler={**facts.scheduler, "use_dynamic_shifting": True})
    # all but Euler cut the time that the model sees to a whole number
    assert distance(facts, sampler, arguments=arguments) < 0.03


@pytest.mark.parametrize("sampler", ["unipc", "dpmsolver++"])
def test_a_flow_sampler_keeps_the_checkpoints_shift(sampler: str):
    shifted = make_scheduler(FLOW_FACTS, sampler)
    assert shifted.config.flow_shift == 3.0
    back = make_scheduler(replace(FLOW_FACTS, scheduler=dict(shifted.config)), "euler")
    assert isinstance(back, diffusers.FlowMatchEulerDiscreteScheduler) and back.config.shift == 3.0


@pytest.mark.parametrize("sampler", ["ddpm", "euler_a", "dpm_2_a", "lcm"])
def test_noise_of_a_sampler_is_that_of_the_prompts_seed(sampler: str):
    """Also in a batch; without it, what else draws random numbers would change the pictures."""
    x = torch.zeros(2, 2, 6, 8)

    def run(seeds: list[int], noise: Tensor) -> Tensor:
        class Blind(Oracle):
            def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
                return 0.3 * noisy

        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        torch.manual_seed(len(seeds))
        return sample(
            Blind(SD, x),
            make_scheduler(SD, sampler),
            noise,
            Conditions({}),
            steps=4,
            generators=generators,  # type: ignore[arg-type]
        )

    noise = torch.randn(2, 2, 6, 8, generator=torch.Generator().manual_seed(3))
    both = run([5, 6], noise)
    torch.testing.assert_close(both[1:], run([6], noise[1:]))
    assert (both[:1] - run([6], noise[:1])).abs().max() > 1e-2


def test_the_light_list_of_names_is_that_of_the_tables():
    class Flow:
        flow = True

    class Diffusion:
        flow = False

    names = {*DIFFUSION, *FLOW, "flowmatch", "mean_flow", None}
    assert {name for name in names if has_sampler(name, Flow)} == {*FLOW, "flowmatch", None}  # type: ignore[arg-type]
    assert {name for name in names if has_sampler(name, Diffusion)} == {*DIFFUSION, None}  # type: ignore[arg-type]


@pytest.mark.parametrize("facts", [FLOW_FACTS, SD])
def test_autocast_leaves_the_steps_of_the_sampler_alone(facts: Facts):
    """UniPC of the third order multiplies matrices."""
    facts = replace(facts, scheduler={**facts.scheduler, "solver_order": 3})
    noise = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))

    class Scaled(Oracle):
        """Answers that change from step to step, for the sampler to look back on."""

        def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
            return torch.sin(3 * noisy)

    family: Any = Scaled(facts, noise)
    wanted = sample(family, make_scheduler(facts, "unipc"), noise, Conditions({}), steps=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = sample(family, make_scheduler(facts, "unipc"), noise, Conditions({}), steps=8)
    assert torch.equal(made, wanted)
