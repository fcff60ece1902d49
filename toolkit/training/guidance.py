"""Guidance while training: targets and predictions that are pushed away from those of another text.

Pure functions of tensors first, then what `Objective` takes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.models.family import Family
from toolkit.training.columns import column, on_device
from toolkit.training.companions import Companion
from toolkit.training.objective import Answer, Distance, Shot
from toolkit.training.preservation import without_gradient


def pushed(no: Tensor, yes: Tensor, scale: Tensor) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022): `scale` [B] times the way from `no` to `yes`, like them."""
    return no + on_device(scale, yes) * (yes - no)


def projected(yes: Tensor, no: Tensor) -> Tensor:
    """`no` scaled to where it is closest to `yes`, sample by sample: CFG-Zero* (Fan et al., 2025), equation 10."""
    flat_yes, flat_no = yes.flatten(1), no.flatten(1)
    share = (flat_yes * flat_no).sum(1) / flat_no.square().sum(1).clamp(min=1e-8)
    return no * column(share, no)


def at_times(scale: Tensor, t: Tensor, schedule: str) -> Tensor:
    """The scale [B] at times t [B]: "constant", or "sigma", from 1 at t = 0 to the whole of it at t = 1."""
    return 1 + (scale - 1) * t if schedule == "sigma" else scale


def beyond(guess: Tensor, wanted: Tensor, scale: float) -> Tensor:
    """`scale` times the way from the prediction to the target."""
    return guess + scale * (wanted - guess)


def regained(answer: Tensor, yes: Tensor, share: float) -> Tensor:
    """`answer` brought `share` of the way to the deviation of `yes` (Lin et al., 2024, section 3.4)."""
    dims = tuple(range(1, answer.ndim))
    return torch.lerp(answer, answer * (yes.std(dims, keepdim=True) / answer.std(dims, keepdim=True)), share)


def spread(u: Tensor, low: float, high: float) -> Tensor:
    """Uniform numbers from `low` to `high`, [B]: from digits of u [B] that hardly decide the times."""
    return low + (high - low) * (u.double() * 2**20).frac()


@dataclass(frozen=True)
class GuidedTarget:
    """A target beyond the plain one: away from what the network answers to the unconditional text.

    A network that learned it needs no second pass while sampling. Samples whose own text is the unconditional one keep
    the plain target: it is what the others are pushed away from.
    """

    target: Answer
    guess: Answer
    unconditional: Companion
    scales: tuple[float, float]
    """The least and the greatest scale; one between them is drawn for each sample."""
    schedule: str = "constant"
    is_projected: bool = False

    def __call__(self, family: Family, shot: Shot) -> Tensor:
        """The target, like the latents."""
        wanted, batch = self.target(family, shot), shot.batch
        with without_gradient():
            other = replace(shot, batch=self.unconditional.batch(family, batch))
            no = self.guess(family, other).float()
        no = projected(wanted, no) if self.is_projected else no
        scale = at_times(spread(batch.u, *self.scales), shot.t, self.schedule)
        same = [one == another for one, another in zip(batch.texts, other.batch.texts, strict=True)]
        is_plain = column(torch.tensor(same).to(wanted.device, non_blocking=True), wanted)
        return torch.where(is_plain, wanted, pushed(no, wanted, scale))


@dataclass(frozen=True)
class GuidedGuess:
    """The prediction as guidance makes it while sampling, with a gradient through both passes."""

    guess: Answer
    negative: Companion
    scales: tuple[float, float]
    """The least and the greatest scale; one between them is drawn for each batch."""
    rescale: float = 0.0

    def __call__(self, family: Family, shot: Shot) -> Tensor:
        """The guided prediction, like the latents."""
        # rounded answers differ by little more than their rounding, which the scale would enlarge
        yes = self.guess(family, shot).float()
        no = self.guess(family, replace(shot, batch=self.negative.batch(family, shot.batch))).float()
        answer = family.guide(yes, no, float(spread(shot.batch.u[:1], *self.scales)), shot.t)
        return regained(answer, yes, self.rescale) if self.rescale else answer


def extrapolated(distance: Distance, scale: float) -> Distance:
    """The distance to a target that lies `scale` times as far from the prediction."""

    def measure(guess: Tensor, shot: Shot) -> Tensor:
        if shot.batch.keeps_base:
            return distance(guess, shot)
        return distance(guess, replace(shot, wanted=beyond(guess.detach().float(), shot.wanted, scale)))

    return measure
