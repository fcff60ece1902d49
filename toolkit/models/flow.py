"""Resolution-dependent schedules of flow-matching families (Esser et al., 2024, section 5.3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def linear_mu(tokens: int, scheduler: Mapping[str, Any]) -> float:
    """The shift mu, linear in the number of image tokens between the scheduler's two anchor points."""
    low, high = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
    base, top = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
    slope = (top - base) / (high - low)
    return tokens * slope + (base - slope * low)


def shift_mu(tokens: int, scheduler: Mapping[str, Any]) -> float:
    """mu of the checkpoint's shift: by size, or fixed (exp(mu) = shift) where the scheduler does not shift by size."""
    if scheduler.get("use_dynamic_shifting"):
        return linear_mu(tokens, scheduler)
    return math.log(scheduler.get("shift", 1.0))


def flow_steps(steps: int, tokens: int, scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `set_timesteps`: noise levels from 1 to 1/steps, and mu where the scheduler shifts by size."""
    arguments: dict[str, Any] = {"sigmas": np.linspace(1.0, 1 / steps, steps)}
    if scheduler.get("use_dynamic_shifting"):
        arguments["mu"] = linear_mu(tokens, scheduler)
    return arguments
