"""Which times are trained, and how much each counts: the `train.timestep_type` choices.

u is uniform in [0, 1). A sample's rank in noise q = 0 is the noisiest; each distribution is its quantile function, so
`content_or_style` and `min/max_denoising_steps` mean the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Quantile = Callable[[Tensor, float], Tensor]


def uniform(p: Tensor, mu: float) -> Tensor:
    """All times alike."""
    return p


def logit_normal(p: Tensor, mu: float) -> Tensor:
    """Sigmoid of a normal variable: the middle of the path most often (Esser et al., 2024)."""
    return torch.sigmoid(torch.special.ndtri(p.clamp(1e-7, 1 - 1e-7)))


def shifted(p: Tensor, mu: float) -> Tensor:
    """Uniform times shifted toward noise by exp(mu), as the checkpoint samples (Esser et al., 2024, section 5.3.2)."""
    return math.exp(mu) / (math.exp(mu) + (1 / p.clamp(min=1e-7) - 1))


QUANTILES: dict[str, Quantile] = {
    "sigmoid": logit_normal,
    "linear": uniform,
    "weighted": uniform,
    "shift": shifted,
    "flux_shift": shifted,
}
RANKS: dict[str, Callable[[Tensor], Tensor]] = {
    "balanced": lambda u: u,
    "content": lambda u: u**3,
    "style": lambda u: 1 - u**3,
}

EVERYWHERE = (0.0, 1.0)


@dataclass(frozen=True)
class Times:
    """Draws training times [B] in 0..1, and weighs them."""

    kind: str = "sigmoid"
    emphasis: str = "balanced"
    low: float = 0.0
    """Smallest rank in noise, 0 is the noisiest."""
    high: float = 1.0
    within: tuple[float, float] = EVERYWHERE
    """Only times from the first to below the second, distributed among each other as without this limit."""

    def draw(self, u: Tensor, mu: float = 0.0) -> Tensor:
        """u [B], uniform -> t [B]; `mu` is the shift of the checkpoint for latents of this size."""
        if self.within == EVERYWHERE:
            return self.quantile(u, mu)
        begin, end = reach(self, mu)
        least, most = self.within
        t = self.quantile(begin + (end - begin) * u, mu)
        return t.clamp(least, most if most == 1 else math.nextafter(most, 0))

    def quantile(self, u: Tensor, mu: float) -> Tensor:
        """t for u of the whole distribution, monotone in u."""
        q = self.low + (self.high - self.low) * RANKS[self.emphasis](u)
        return QUANTILES[self.kind](1 - q, mu)

    def check(self, mu: float = 0.0) -> None:
        """Raise ValueError if there is no time to draw."""
        begin, end = reach(self, mu)
        if end - begin < 1e-9:
            least, most = self.within
            raise ValueError(
                "train.min_denoising_steps and max_denoising_steps leave nothing to train at the times from "
                f"{least:g} to {most:g}; widen them, or train the other expert only"
            )

    def weight(self, t: Tensor) -> Tensor:
        """Factor of the loss at t [B]; its mean over uniform t is 1."""
        return bell(t) if self.kind == "weighted" else torch.ones_like(t)


@lru_cache(maxsize=1024)
def reach(times: Times, mu: float) -> tuple[float, float]:
    """The two u between which the times are `within`: t is monotone in u, so halving an interval finds them."""

    def time_at(u: float) -> float:
        return float(times.quantile(torch.tensor([u], dtype=torch.float64), mu))

    rises = time_at(1.0) > time_at(0.0)

    def crossing(t: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if (time_at(middle) < t) == rises else (low, middle)
        return high

    begin, end = sorted(crossing(t) for t in times.within)
    return begin, end


def bell(t: Tensor) -> Tensor:
    """exp(-2 (t - 1/2)^2), lowered to 0 at both ends and scaled to mean 1: the middle of the path counts most."""
    edge = math.exp(-0.5)
    area = math.sqrt(math.pi / 2) * math.erf(math.sqrt(0.5)) - edge
    return (torch.exp(-2 * (t - 0.5) ** 2) - edge) / area
