"""From noise to latents: one function for all families; diffusers' schedulers do the maths."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from toolkit.models.conditions import Conditions, hold
from toolkit.models.family import Family
from toolkit.sampling.schedulers import set_steps
from toolkit.sampling.start import Start, begin

Advance = Callable[[float], None]
"""Hears after every step how much was done by it, counted in pictures; what it raises ends the work."""


@torch.no_grad()
def sample(
    family: Family,
    scheduler: Any,
    noise: Tensor,
    cond: Conditions,
    no: Conditions | None = None,
    guidance: float = 1.0,
    steps: int = 20,
    rescale: float = 0.0,
    generators: Sequence[torch.Generator] = (),
    start: Start | None = None,
    advance: Advance | None = None,
) -> Tensor:
    """Denoise `noise` [B, C, (f,) h, w] under `cond` to latents of the same shape; with `start`, from a picture on.

    With the conditions `no` of the negative prompt, `guidance` is the scale of classifier-free guidance, and `rescale`
    how far the guided prediction gets its deviation back. Schedulers that add noise take it from `generators`, one per
    sample.
    """
    set_steps(scheduler, family.schedule(steps, tuple(noise.shape)))
    options: dict[str, Any] = {"return_dict": False}
    if generators and "generator" in inspect.signature(scheduler.step).parameters:
        options["generator"] = list(generators)
    x, timesteps = begin(scheduler, noise, steps, start)
    for step in timesteps:
        z = scheduler.scale_model_input(x, step) if hasattr(scheduler, "scale_model_input") else x
        z = hold(z, cond)
        t = (step.double() / scheduler.config.num_train_timesteps).expand(len(x))
        guess = family.predict(z, t, cond)
        if no is not None:
            yes = guess
            guess = family.guide(yes, family.predict(z, t, no), guidance, t)
            guess = rescaled(guess, yes, rescale) if rescale else guess
        # in full precision: UniPC of the third order multiplies matrices, which autocast would round
        with torch.autocast(x.device.type, enabled=False):
            x = scheduler.step(guess.float(), step, x, **options)[0]
        if advance is not None:
            advance(len(x) / len(timesteps))
    return hold(x, cond)


def rescaled(guided: Tensor, yes: Tensor, share: float) -> Tensor:
    """Guided prediction brought `share` of the way to the deviation of `yes` (Lin et al., 2024, section 3.4)."""
    dims = tuple(range(1, guided.ndim))
    restored = guided * (yes.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True))
    return torch.lerp(guided, restored, share)
