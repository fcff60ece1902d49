"""How much the loss of each time counts, and how far an error at a time reaches: functions of a path and t [B].

The signal to noise ratio of noisy = a x + s e is a^2 / s^2; for flow matching, ((1 - t) / t)^2. All of it is computed
on the host.
"""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.training.objective import Weight
from toolkit.training.path import Path

SMALLEST = 1e-4
"""Stands for a signal of 0, which checkpoints that predict noise do not have."""


def levels(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    """(a, s) [B] of the path."""
    return path.coefficients(t, t)


def clean_slope(path: Path, t: Tensor) -> Tensor:
    """How far the implied x moves for an error of 1 in the prediction: s for flow and v, s / a for epsilon."""
    a, s = levels(path, t)
    return s / a.clamp(min=SMALLEST) if path.prediction == "epsilon" else s


def stepped_slope(path: Path, t: Tensor, step: float = 0.05) -> Tensor:
    """How far x moves for an error of 1, if it is read off after a sampling step from t to t - step (at least 0).

    Along the prediction to t', then back from the true noise: (t - t') / (1 - t') for flow matching.
    """
    a, s = levels(path, t)
    a_then, s_then = (level.clamp(min=SMALLEST) for level in levels(path, (t - step).clamp(min=0)))
    if path.prediction == "flow":
        return (a_then - a) / a_then
    ahead = s * a_then - s_then * a
    return ahead / a_then / (a.clamp(min=SMALLEST) if path.prediction == "epsilon" else 1)


def evening(slope: Tensor) -> Tensor:
    """Factor [B] of a squared error of x that makes it that of the prediction again: 1 / slope^2, at most 100.

    For flow matching 1 / max(t, 0.1)^2, as ai-toolkit's `t0_velocity_equiv_weight`.
    """
    return slope.clamp(min=0.1) ** -2


def min_snr(gamma: float) -> Weight:
    """Min-SNR (Hang et al., 2023): the squared error of x counts min(SNR, gamma).

    For the error of the prediction this is min(SNR, gamma) / SNR where noise is predicted,
    min(SNR, gamma) / (SNR + 1) for v, as in the paper, and min((1 - t)^2, gamma t^2) for flow matching.
    """

    def weight(path: Path, t: Tensor) -> Tensor:
        a, s = levels(path, t)
        counted = torch.minimum(a**2, gamma * s**2)
        return counted / a.clamp(min=SMALLEST) ** 2 if path.prediction == "epsilon" else counted

    return weight


def snr(gamma: float) -> Weight:
    """The squared error of x counts gamma at all times: gamma / SNR where noise is predicted, gamma t^2 for flow."""
    return lambda path, t: gamma * clean_slope(path, t) ** 2
