"""From noise to latents: one function for all families; diffusers' schedulers do the maths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toolkit.models.conditions import Conditions, hold
from toolkit.models.family import Family


@torch.no_grad()
def sample(
    family: Family,
    scheduler: Any,
    noise: Tensor,
    cond: Conditions,
    no: Conditions | None = None,
    guidance: float = 1.0,
    steps: int = 20,
) -> Tensor:
    """Denoise `noise` [B, C, (f,) h, w] under `cond` to latents of the same shape.

    With the conditions `no` of the negative prompt, `guidance` is the scale of classifier-free guidance.
    """
    scheduler.set_timesteps(**family.schedule(steps, tuple(noise.shape)))
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for step in scheduler.timesteps:
        z = scheduler.scale_model_input(x, step) if hasattr(scheduler, "scale_model_input") else x
        z = hold(z, cond)
        t = (step.double() / scheduler.config.num_train_timesteps).expand(len(x))
        guess = family.predict(z, t, cond)
        if no is not None:
            guess = family.guide(guess, family.predict(z, t, no), guidance, t)
        x = scheduler.step(guess.float(), step, x, return_dict=False)[0]
    return hold(x, cond)
