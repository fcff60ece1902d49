"""Which times are trained, and how much each counts: the `train.timestep_type` choices.

u is uniform in [0, 1). A sample's rank in noise q = 0 is the noisiest; each distribution is its quantile function, so
`content_or_style` and `min/max_denoising_steps` mean the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
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


def blended(p: Tensor, mu: float) -> Tensor:
    """Three quarters log-normal, mostly between 0.5 and 0.75, and one quarter uniform (ai-toolkit's `lognorm_blend`).

    The log-normal part is t = 1 - exp(z / 3) / e with z normal, where that is not less than 0.
    """
    t, cumulated = _blend()
    place = torch.searchsorted(cumulated, p.contiguous()).clamp(1, len(t) - 1)
    low, high = cumulated[place - 1], cumulated[place]
    return torch.lerp(t[place - 1], t[place], ((p - low) / (high - low)).clamp(0, 1))


@lru_cache(maxsize=1)
def _blend() -> tuple[Tensor, Tensor]:
    """Times, and the probability to be below each; inverted by interpolation, there is no closed form."""
    t = torch.linspace(0, 1, 4097, dtype=torch.float64)
    normal = torch.special.ndtr(3 * (1 + torch.log1p(-t)))
    return t, 0.75 * (1 - normal / normal[0]) + 0.25 * t


def steps(count: int) -> Quantile:
    """The times at which a sampler with `count` equal steps asks the network: 1, 1 - 1 / count, ... 1 / count."""
    return lambda p, mu: (p * count).ceil().clamp(1, count) / count


QUANTILES: dict[str, Quantile] = {
    "sigmoid": logit_normal,
    "linear": uniform,
    "weighted": uniform,
    "weighted2": uniform,
    "shift": shifted,
    "flux_shift": shifted,
    "lumina2_shift": shifted,
    "lognorm_blend": blended,
    "next_sample": shifted,
    "one_step": steps(1),
    "two_step": steps(2),
    "four_step": steps(4),
    "eight_step": steps(8),
}
RANKS: dict[str, Callable[[Tensor], Tensor]] = {
    "balanced": lambda u: u,
    "content": lambda u: u**3,
    "style": lambda u: 1 - u**3,
}

EVERYWHERE = (0.0, 1.0)
EDGE = math.exp(-0.5)
AREA = math.sqrt(math.pi / 2) * math.erf(math.sqrt(0.5)) - EDGE
"""Of exp(-2 (t - 1/2)^2) between 0 and 1: its value at the ends, and what it encloses above that."""


@dataclass(frozen=True)
class Times:
    """Draws training times [B] in 0..1, and weighs them."""

    kind: str = "sigmoid"
    emphasis: str = "balanced"
    reg_emphasis: str | None = None
    """That of regularization pictures, if it is another one."""
    low: float = 0.0
    """Smallest rank in noise, 0 is the noisiest."""
    high: float = 1.0
    within: tuple[float, float] = EVERYWHERE
    """Only times from the first to below the second, distributed among each other as without this limit."""

    num_steps: int = 8
    """Steps of the sampler that `next_sample` takes one step of."""

    def draw(self, u: Tensor, mu: float = 0.0, is_reg: bool = False) -> Tensor:
        """u [B], uniform -> t [B]; `mu` is the shift of the checkpoint for latents of this size."""
        if is_reg and self.reg_emphasis:
            return replace(self, emphasis=self.reg_emphasis).draw(u, mu)
        if self.within == EVERYWHERE:
            return self.quantile(u, mu)
        begin, end = reach(self, mu)
        least, most = self.within
        t = self.quantile(begin + (end - begin) * u, mu)
        return t.clamp(least, most if most == 1 else math.nextafter(most, 0))

    def quantile(self, u: Tensor, mu: float) -> Tensor:
        """t for u of the whole distribution, monotone in u."""
        q = self.low + (self.high - self.low) * RANKS[self.emphasis](u)
        p = 1 - q
        if self.kind == "next_sample":
            # all steps of the sampler but the last, which none comes after
            p = (1 + (p * (self.num_steps - 1)).ceil().clamp(1, self.num_steps - 1)) / self.num_steps
        return QUANTILES[self.kind](p, mu)

    def check(self, mu: float = 0.0) -> None:
        """Raise ValueError if there is no time to draw."""
        begin, end = reach(self, mu)
        if end - begin < 1e-9:
            least, most = self.within
            raise ValueError(
                "train.min_denoising_steps, max_denoising_steps and timestep_type leave nothing to train at the times "
                f"from {least:g} to {most:g}; widen them, or train the other expert only"
            )

    def weight(self, t: Tensor) -> Tensor:
        """Factor of the loss at t [B]; its mean over uniform t is 1."""
        if self.kind == "weighted2":
            return half_bell(t)
        return bell(t) if self.kind == "weighted" else torch.ones_like(t)


@lru_cache(maxsize=1024)
def reach(times: Times, mu: float) -> tuple[float, float]:
    """The two u between which the times are `within`: t is monotone in u, so halving an interval finds them."""

    def time_at(u: float) -> float:
        return float(times.quantile(torch.tensor([u], dtype=torch.float64), mu))

    rises = time_at(1.0) > time_at(0.0)

    def crossing(t: float) -> float:
        if t in EVERYWHERE:
            # some distributions give the noisiest time more than nothing
            return float((t == 1) == rises)
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if (time_at(middle) < t) == rises else (low, middle)
        return high

    begin, end = sorted(crossing(t) for t in times.within)
    return begin, end


def bell(t: Tensor) -> Tensor:
    """exp(-2 (t - 1/2)^2), lowered to 0 at both ends and scaled to mean 1: the middle of the path counts most."""
    return (torch.exp(-2 * (t - 0.5) ** 2) - EDGE) / AREA


def half_bell(t: Tensor) -> Tensor:
    """The bell from its middle to the noisy end, its highest value at cleaner times; scaled to mean 1."""
    return 2 * bell(t.clamp(min=0.5)) / (1 + (1 - EDGE) / AREA)
