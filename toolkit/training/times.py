"""Which times are trained, and how much each counts: the `train.timestep_type` choices.

u is uniform in [0, 1). A sample's rank in noise q = 0 is the noisiest; each distribution is its quantile function, so
`content_or_style` and `min/max_denoising_steps` mean the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toolkit.models.flow import shift_mu

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


@dataclass(frozen=True)
class Times:
    """Draws training times [B] in 0..1, and weighs them."""

    kind: str = "sigmoid"
    emphasis: str = "balanced"
    low: float = 0.0
    """Smallest rank in noise, 0 is the noisiest."""
    high: float = 1.0

    def draw(self, u: Tensor, tokens: int, scheduler: Mapping[str, Any]) -> Tensor:
        """u [B], uniform -> t [B] for latents of `tokens` image tokens."""
        q = self.low + (self.high - self.low) * RANKS[self.emphasis](u)
        return QUANTILES[self.kind](1 - q, shift_mu(tokens, scheduler))

    def weight(self, t: Tensor) -> Tensor:
        """Factor of the loss at t [B]; its mean over uniform t is 1."""
        return bell(t) if self.kind == "weighted" else torch.ones_like(t)


def bell(t: Tensor) -> Tensor:
    """exp(-2 (t - 1/2)^2), lowered to 0 at both ends and scaled to mean 1: the middle of the path counts most."""
    edge = math.exp(-0.5)
    area = math.sqrt(math.pi / 2) * math.erf(math.sqrt(0.5)) - edge
    return (torch.exp(-2 * (t - 0.5) ** 2) - edge) / area
