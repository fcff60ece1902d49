"""Times as networks count them, and resolution-dependent schedules (Esser et al., 2024, section 5.3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from toolkit.models.family import Family

TYPICAL_STEPS = 28
"""Sampling steps, where a shift depends on their number."""


def steps_of(t: Tensor, scheduler: Mapping[str, Any], device: torch.device) -> Tensor:
    """Times t [B] in 0..1 as the scheduler numbers its steps, fractions of a step allowed: fp32 on `device`."""
    return (t * scheduler.get("num_train_timesteps", 1000)).to(device, torch.float32, non_blocking=True)


def steps_per_token(steps: Tensor, f: int, tokens: int, given: Tensor | None) -> Tensor:
    """Steps [B] of videos with `tokens` tokens in each of `f` latent frames -> [B, f * tokens], 0 in given frames."""
    per_token = steps[:, None, None].repeat(1, f, tokens)
    if given is not None:
        per_token[:, : given.shape[2]] = 0
    return per_token.flatten(1)


def linear_mu(tokens: int, scheduler: Mapping[str, Any]) -> float:
    """The shift mu, linear in the number of image tokens between the scheduler's two anchor points."""
    low, high = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
    base, top = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
    slope = (top - base) / (high - low)
    return tokens * slope + (base - slope * low)


def training_mu(family: Family, shape: tuple[int, ...]) -> float:
    """mu of the shift with which the family samples latents of `shape` [C, (f,) h, w]; exp(mu) is the shift itself."""
    scheduler = family.facts.scheduler
    if not scheduler.get("use_dynamic_shifting"):
        return math.log(scheduler.get("shift") or scheduler.get("flow_shift") or 1.0)
    mu = family.schedule(TYPICAL_STEPS, shape)["mu"]
    return math.log(mu) if scheduler.get("time_shift_type") == "linear" else mu


def flow_steps(steps: int, tokens: int, scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `set_timesteps`: noise levels from 1 to 1/steps, and mu where the scheduler shifts by size."""
    arguments: dict[str, Any] = {"sigmas": np.linspace(1.0, 1 / steps, steps)}
    if scheduler.get("use_dynamic_shifting"):
        arguments["mu"] = linear_mu(tokens, scheduler)
    return arguments
