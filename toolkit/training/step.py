"""The loss of one batch: a pure function of the family, the batch and the objective."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from toolkit.models.conditions import hold
from toolkit.models.family import Family
from toolkit.models.flow import training_mu
from toolkit.training.batch import Batch
from toolkit.training.objective import Objective, Shot
from toolkit.training.path import Path
from toolkit.training.times import Times


def step_losses(family: Family, batch: Batch, objective: Objective) -> Iterator[Tensor]:
    """The losses whose sum a step minimizes: scalars on the device, each differentiated before the next is made."""
    shot = take_shot(family, batch, objective)
    shot = replace(shot, wanted=objective.target(family, shot))
    yield shot_loss(family, shot, objective)
    for term in objective.terms:
        yield from term(family, shot)


def take_shot(family: Family, batch: Batch, objective: Objective) -> Shot:
    """The batch as its rules prepare it, at its times and with its noise; `wanted` is that of the path."""
    batch = objective.prepare(batch)
    mu = training_mu(family, tuple(batch.latents.shape[1:]))
    t = objective.path.times(objective.times.draw(batch.u, mu, batch.is_reg))
    return objective.adjust(family, aim(batch, objective.path, t, objective.noise(batch)))


def shot_loss(family: Family, shot: Shot, objective: Objective) -> Tensor:
    """How far the prediction is from `shot.wanted`, weighted per sample and time: a scalar on the device."""
    guess = objective.guess(family, shot)
    errors = sample_errors(objective.distance(guess, shot), shot.batch)
    for beside in objective.beside:
        errors = errors + beside(family, guess, shot)
    weight = objective.times.weight(shot.t) * objective.weight(objective.path, shot.t)
    losses = errors * weight.float().to(errors.device, non_blocking=True) * shot.batch.weight
    return (losses if objective.max_loss is None else losses.clamp(max=objective.max_loss)).mean()


def step_loss(family: Family, batch: Batch, path: Path, times: Times) -> Tensor:
    """Mean squared error of the prediction, weighted per sample and time: a scalar on the device."""
    (loss,) = step_losses(family, batch, Objective(path, times))
    return loss


def errors_at(family: Family, batch: Batch, path: Path, t: Tensor) -> Tensor:
    """Mean squared error of the prediction for each sample [B] at times t [B], more where the mask says so."""
    objective, shot = Objective(path), aim(batch, path, t, batch.noise)
    return sample_errors(objective.distance(objective.guess(family, shot), shot), batch)


def aim(batch: Batch, path: Path, t: Tensor, e: Tensor) -> Shot:
    """The shot of a batch at times t [B] with the noise e."""
    x = batch.latents
    return Shot(batch, path, e, t, hold(path.noisy(x, e, t), batch.cond), path.wanted(x, e, t))


def sample_errors(error: Tensor, batch: Batch) -> Tensor:
    """The error of every element, like the latents -> that of each sample [B], more where the mask says so."""
    if batch.mask is not None:
        # weights of mean 1 per sample, [B, 1, (1,) h, w]: all channels and frames alike
        error = error * batch.mask
    return sample_means(error, batch.num_given)


def sample_means(error: Tensor, given: int = 0) -> Tensor:
    """Mean error of each sample [B] over what was not `given` (the first latent frames of a video)."""
    if given:
        error = error[:, :, given:]
    return error.flatten(1).mean(dim=1)
