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
    mu = training_mu(family, tuple(batch.latents.shape[1:]))
    shot = aim(batch, objective.path, objective.path.times(objective.times.draw(batch.u, mu)), objective.noise(batch))
    shot = replace(shot, wanted=objective.target(family, shot))
    errors = sample_errors(objective.distance(objective.guess(family, shot), shot), batch)
    weight = objective.times.weight(shot.t) * objective.weight(objective.path, shot.t)
    yield (errors * weight.float().to(errors.device, non_blocking=True) * batch.weight).mean()
    for term in objective.terms:
        yield from term(family, shot)


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
    given = batch.cond.get("given")
    return sample_means(error, 0 if given is None else given.shape[2])


def sample_means(error: Tensor, given: int = 0) -> Tensor:
    """Mean error of each sample [B] over what was not `given` (the first latent frames of a video)."""
    if given:
        error = error[:, :, given:]
    return error.flatten(1).mean(dim=1)
