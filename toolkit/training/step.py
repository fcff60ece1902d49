"""The loss of one batch: a pure function of the family, the batch and the objective."""

from __future__ import annotations

from torch import Tensor

from toolkit.models.conditions import hold
from toolkit.models.family import Family
from toolkit.training.batch import Batch
from toolkit.training.path import Path
from toolkit.training.times import Times


def step_loss(family: Family, batch: Batch, path: Path, times: Times) -> Tensor:
    """Mean squared error of the prediction, weighted per sample and time: a scalar on the device."""
    x, e, cond = batch.latents, batch.noise, batch.cond
    tokens = x[0, 0].numel() // 4
    t = path.times(times.draw(batch.u, tokens, family.facts.scheduler))
    noisy = hold(path.noisy(x, e, t), cond)
    guess = family.predict(noisy, t, cond)
    given = cond.get("given")
    num_given = 0 if given is None else given.shape[2]
    error = sample_means((guess.float() - path.wanted(x, e, t)).square(), num_given)
    weight = times.weight(t).float().to(error.device, non_blocking=True)
    return (error * weight * batch.weight).mean()


def sample_means(error: Tensor, given: int = 0) -> Tensor:
    """Mean error of each sample [B] over what was not `given` (the first latent frames of a video)."""
    if given:
        error = error[:, :, given:]
    return error.flatten(1).mean(dim=1)
