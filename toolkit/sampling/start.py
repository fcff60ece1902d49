"""Image to image (SDEdit, Meng et al., 2022): a picture is noised to a time of the schedule and denoised from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Start:
    """What is denoised instead of pure noise."""

    latents: Tensor
    """[B, C, (f,) h, w], normalized."""
    strength: float
    """Share of the steps that are taken, 0..1: near 0 the picture stays, with 1 nothing is left of it."""


def begin(scheduler: Any, noise: Tensor, steps: int, start: Start | None) -> tuple[Tensor, Tensor]:
    """(what is denoised first, the steps [N] that are left); the scheduler has its `steps` steps set."""
    if start is None or start.strength >= 1:
        return noise * getattr(scheduler, "init_noise_sigma", 1.0), scheduler.timesteps
    left = steps_left(steps, start.strength)
    # schedulers of the second order list the steps between as well
    first = (steps - left) * getattr(scheduler, "order", 1)
    if not left:
        return start.latents, scheduler.timesteps[:0]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return _noised(scheduler, start.latents, noise, first), scheduler.timesteps[first:]


def steps_left(steps: int, strength: float) -> int:
    """How many of `steps` steps a strength takes: rounded down, as in diffusers, but never none unless it is 0."""
    # without the small number, 0.29 * 100 would be 28
    return max(int(steps * strength + 1e-6), int(strength > 0))


def _noised(scheduler: Any, latents: Tensor, noise: Tensor, first: int) -> Tensor:
    """The latents as noisy as they are before the step number `first`."""
    if scheduler.config.get("invert_sigmas"):
        # the sigmas of such a flow are shares of the picture
        level = 1 - scheduler.sigmas[first].to(latents)
        return latents + level * (noise - latents)
    mix = scheduler.scale_noise if hasattr(scheduler, "scale_noise") else None
    steps = scheduler.timesteps[first : first + 1].expand(len(latents))
    return mix(latents, steps, noise) if mix else scheduler.add_noise(latents, noise, steps)
