"""Which diffusers scheduler makes the samples: the checkpoint's own, or the one that `sample.sampler` names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from toolkit.models.family import Facts

Choice = tuple[str, Mapping[str, Any]]
"""Name of a class of diffusers, and what it is to have other than in the checkpoint's configuration."""

KARRAS = {"use_karras_sigmas": True}
DIFFUSION: dict[str, Choice] = {
    "ddpm": ("DDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", {}),
    "k_lms": ("LMSDiscreteScheduler", KARRAS),
    "euler": ("EulerDiscreteScheduler", {}),
    "k_euler": ("EulerDiscreteScheduler", KARRAS),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "k_euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "k_euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    # the first-order formula divides by the last noise level, so that must not be 0
    "dpmsolver": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "k_dpmsolver": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", **KARRAS},
    ),
    "k_dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", **KARRAS}),
    "dpmsingle": ("DPMSolverSinglestepScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "k_heun": ("HeunDiscreteScheduler", KARRAS),
    "dpm_2": ("KDPM2DiscreteScheduler", {}),
    "k_dpm_2": ("KDPM2DiscreteScheduler", KARRAS),
    "dpm_2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    "k_dpm_2_a": ("KDPM2AncestralDiscreteScheduler", KARRAS),
    "lcm": ("LCMScheduler", {}),
    "custom_lcm": ("LCMScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
"""For models that predict epsilon or v."""

AS_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, **dict.fromkeys(KARRAS, False)}
FLOW: dict[str, Choice] = {
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", AS_FLOW),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", **AS_FLOW}),
}
"""For models trained by flow matching; any other name means the checkpoint's own scheduler."""


def make_scheduler(facts: Facts, sampler: str | None = None) -> Any:
    """The scheduler `sampler` with the checkpoint's configuration; None, or a name of the other kind: its own."""
    config = dict(facts.scheduler)
    table = FLOW if facts.prediction == "flow" else DIFFUSION
    name, changes = table.get(sampler or "", (config["_class_name"], {}))
    if table is FLOW and name != config["_class_name"]:
        # two names of one number
        shift = config.get("flow_shift", config.get("shift", 1.0))
        changes = {**changes, "shift": shift, "flow_shift": shift}
    try:
        return getattr(diffusers, name).from_config({**config, **changes})
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"sample.sampler: {sampler or name} cannot be used here: {reason}") from error


def set_steps(scheduler: Any, arguments: Mapping[str, Any]) -> None:
    """Call `set_timesteps` with what a family's own scheduler takes, as far as this scheduler takes it."""
    known = inspect.signature(scheduler.set_timesteps).parameters
    taken = {key: value for key, value in arguments.items() if key in known}
    if "sigmas" in arguments and "sigmas" not in known:
        taken["num_inference_steps"] = len(arguments["sigmas"])
    scheduler.set_timesteps(**taken)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
