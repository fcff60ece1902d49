"""The path from data to noise: one interface for flow matching, epsilon and v prediction.

x are latents, e is noise of the same shape, t [B] in 0..1 where 1 is noise: scheduler timestep / num_train_timesteps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from toolkit.models.family import Facts


class Path:
    """Mixes data and noise as the checkpoint was trained, and says what its network should answer.

    Flow: Lipman et al. (2023) and Liu et al. (2023), straight paths. Epsilon: Ho et al. (2020). v: Salimans and Ho
    (2022).
    """

    def __init__(self, prediction: str, scheduler: Mapping[str, Any]) -> None:
        self.prediction = prediction
        self.num_steps = int(scheduler.get("num_train_timesteps", 1000))
        self._signal: Tensor | None = None if prediction == "flow" else _signal_levels(scheduler, self.num_steps)

    @classmethod
    def of(cls, facts: Facts) -> Path:
        """The path that the checkpoint with these facts was trained on."""
        return cls(facts.prediction, facts.scheduler)

    def times(self, u: Tensor) -> Tensor:
        """u in [0, 1] -> times that the network was trained on: as they are, or on the grid of discrete steps."""
        if self._signal is None:
            return u
        return (u * self.num_steps).floor().clamp(max=self.num_steps - 1) / self.num_steps

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(a, s) of noisy = a x + s e, shaped to multiply `like` [B, ...]."""
        t = t.double()
        if self._signal is None:
            a, s = 1 - t, t
        else:
            position = (t * self.num_steps).clamp(0, self.num_steps - 1)
            low = position.floor().long()
            high = (low + 1).clamp(max=self.num_steps - 1)
            squared = torch.lerp(self._signal[low], self._signal[high], position - low)
            a, s = squared.sqrt(), (1 - squared).sqrt()
        shape = (-1,) + (1,) * (like.ndim - 1)
        return tuple(value.float().to(like.device, non_blocking=True).view(shape) for value in (a, s))  # type: ignore[return-value]

    def noisy(self, x: Tensor, e: Tensor, t: Tensor) -> Tensor:
        """The point of the path between x and e at t."""
        a, s = self.coefficients(t, x)
        return a * x + s * e

    def wanted(self, x: Tensor, e: Tensor, t: Tensor) -> Tensor:
        """What the network should predict."""
        if self.prediction == "flow":
            return e - x
        if self.prediction == "epsilon":
            return e
        a, s = self.coefficients(t, x)
        return a * e - s * x

    def clean(self, noisy: Tensor, guess: Tensor, t: Tensor) -> Tensor:
        """The x that a prediction implies."""
        a, s = self.coefficients(t, noisy)
        if self.prediction == "flow":
            return noisy - s * guess
        return (noisy - s * guess) / a if self.prediction == "epsilon" else a * noisy - s * guess

    def step(self, noisy: Tensor, guess: Tensor, t: Tensor, other: Tensor) -> Tensor:
        """From t to the time `other` along a prediction, in one step of Euler or DDIM (Song et al., 2021)."""
        a, s = self.coefficients(t, noisy)
        if self.prediction == "flow":
            e = noisy + a * guess
        else:
            e = guess if self.prediction == "epsilon" else a * guess + s * noisy
        return self.noisy(self.clean(noisy, guess, t), e, other)

    def noise_between(self, x: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The noise e for which `noisy` lies on the path between x and e at t > 0."""
        a, s = self.coefficients(t, noisy)
        return (noisy - a * x) / s


def _signal_levels(scheduler: Mapping[str, Any], num_steps: int) -> Tensor:
    """alpha-bar of every discrete step, float64, from the scheduler's betas."""
    start, end = scheduler.get("beta_start", 0.00085), scheduler.get("beta_end", 0.012)
    kind = scheduler.get("beta_schedule", "scaled_linear")
    if kind == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, num_steps, dtype=torch.float64) ** 2
    elif kind == "linear":
        betas = torch.linspace(start, end, num_steps, dtype=torch.float64)
    else:
        raise ValueError(f"the checkpoint's beta_schedule {kind!r} is not supported")
    levels = torch.cumprod(1 - betas, dim=0)
    # CogVideoX lowers the signal to noise ratio of all steps (Yang et al., 2024)
    shift = scheduler.get("snr_shift_scale", 1.0)
    levels = levels / (shift + (1 - shift) * levels)
    if scheduler.get("rescale_betas_zero_snr"):
        # Lin et al. (2024), algorithm 1: shift and scale sqrt(alpha-bar) so that the last step is pure noise
        root = levels.sqrt()
        levels = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return levels
