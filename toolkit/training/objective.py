"""What a step minimizes, as a set of pure functions: which noise and times, which target, which distance, what else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from toolkit.models.family import Family
from toolkit.training.batch import Batch
from toolkit.training.path import Path
from toolkit.training.times import Times


@dataclass(frozen=True)
class Shot:
    """A batch at its times: what the network is shown, and what it should answer."""

    batch: Batch
    path: Path
    e: Tensor
    """The noise that is in `noisy`, [B, C, (f,) h, w]."""
    t: Tensor
    """[B] in 0..1, float64, on the host."""
    noisy: Tensor
    """[B, C, (f,) h, w], with what is `given` held."""
    wanted: Tensor
    """Like `noisy`: what the prediction is compared with."""


Prepare = Callable[[Batch], Batch]
"""What a step sees in place of a batch."""
Noise = Callable[[Batch], Tensor]
"""Batch -> the noise of its samples, like its latents."""
Adjust = Callable[[Family, Shot], Shot]
"""What the network is shown and asked for in place of a shot, before `target` looks at it."""
Answer = Callable[[Family, Shot], Tensor]
"""A prediction, or what replaces `Shot.wanted`, like the latents."""
Distance = Callable[[Tensor, Shot], Tensor]
"""(guess, shot) -> error of every element, like the latents, fp32."""
Beside = Callable[[Family, Tensor, Shot], Tensor]
"""(family, guess, shot) -> what the same prediction is measured by too: an error of each sample [B]."""
Weight = Callable[[Path, Tensor], Tensor]
"""(path, t [B]) -> factor of each sample's loss [B], on the host."""
Term = Callable[[Family, Shot], Iterator[Tensor]]
"""Further losses of the same shot: scalars, each differentiated before the next is asked for."""


def as_it_is(batch: Batch) -> Batch:
    """The batch as it was read."""
    return batch


def drawn_noise(batch: Batch) -> Tensor:
    """The noise as it was drawn."""
    return batch.noise


def as_aimed(family: Family, shot: Shot) -> Shot:
    """The shot as the path gives it."""
    return shot


def predict(family: Family, shot: Shot) -> Tensor:
    """What the network answers."""
    return family.predict(shot.noisy, shot.t, shot.batch.cond)


def path_target(family: Family, shot: Shot) -> Tensor:
    """What the checkpoint was trained to answer."""
    return shot.wanted


def squared(guess: Tensor, shot: Shot) -> Tensor:
    """Squared error."""
    return (guess.float() - shot.wanted).square()


def alike(path: Path, t: Tensor) -> Tensor:
    """All times count alike."""
    return torch.ones_like(t)


@dataclass(frozen=True)
class Objective:
    """The rules of a loss. The defaults are the mean squared error of the path's own target."""

    path: Path
    times: Times = field(default_factory=Times)
    prepare: Prepare = as_it_is
    noise: Noise = drawn_noise
    adjust: Adjust = as_aimed
    target: Answer = path_target
    guess: Answer = predict
    distance: Distance = squared
    beside: Sequence[Beside] = ()
    weight: Weight = alike
    """Beside the weight that belongs to `times`."""
    max_loss: float | None = None
    """No sample's loss is more than this; one that would be has no gradient."""
    terms: Sequence[Term] = ()
