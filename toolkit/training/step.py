"""The loss of one batch: a pure function of the family, the batch and the objective."""

from __future__ import annotations

from torch import Tensor

from toolkit.models.conditions import hold
from toolkit.models.family import Family
from toolkit.models.flow import training_mu
from toolkit.training.batch import Batch
from toolkit.training.path import Path
from toolkit.training.times import Times


def step_loss(family: Family, batch: Batch, path: Path, times: Times) -> Tensor:
    """Mean squared error of the prediction, weighted per sample and time: a scalar on the device."""
    mu = training_mu(family, tuple(batch.latents.shape[1:]))
    t = path.times(times.draw(batch.u, mu))
    error = errors_at(family, batch, path, t)
    weight = times.weight(t).float().to(error.device, non_blocking=True)
    return (error * weight * batch.weight).mean()


def errors_at(family: Family, batch: Batch, path: Path, t: Tensor) -> Tensor:
    """Mean squared error of the prediction for each sample [B] at times t [B], more where the mask says so."""
    x, e, cond = batch.latents, batch.noise, batch.cond
    guess = family.predict(hold(path.noisy(x, e, t), cond), t, cond)
    error = (guess.float() - path.wanted(x, e, t)).square()
    if batch.mask is not None:
        # weights of mean 1 per sample, [B, 1, (1,) h, w]: all channels and frames alike
        error = error * batch.mask
    given = cond.get("given")
    return sample_means(error, 0 if given is None else given.shape[2])


def sample_means(error: Tensor, given: int = 0) -> Tensor:
    """Mean error of each sample [B] over what was not `given` (the first latent frames of a video)."""
    if given:
        error = error[:, :, given:]
    return error.flatten(1).mean(dim=1)
