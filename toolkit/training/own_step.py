"""`timestep_type: next_sample`: the network is shown where its own step leads to, and learns to make up for it."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from toolkit.models.conditions import hold
from toolkit.models.family import Family
from toolkit.models.flow import training_mu
from toolkit.training.objective import Adjust, Shot, predict
from toolkit.training.preservation import without_gradient
from toolkit.training.times import shifted


def after_own_step(num_steps: int) -> Adjust:
    """The shot after one sampling step of the network, at the next of `num_steps` times.

    The target leads from there to x, as if the place had been reached with other noise. After ai-toolkit; near to Ning
    et al. (2023), "Input Perturbation Reduces Exposure Bias", with the true error in place of a random one.
    """

    def adjust(family: Family, shot: Shot) -> Shot:
        path, x = shot.path, shot.batch.latents
        t = path.times(next_time(shot.t, training_mu(family, tuple(x.shape[1:])), num_steps))
        with without_gradient():
            noisy = path.step(shot.noisy, predict(family, shot).float(), shot.t, t)
        e = path.noise_between(x, noisy, t)
        return replace(shot, e=e, t=t, noisy=hold(noisy, shot.batch.cond), wanted=path.wanted(x, e, t))

    return adjust


def next_time(t: Tensor, mu: float, num_steps: int) -> Tensor:
    """The time one step after t [B] for a sampler of `num_steps` equal steps that are shifted by mu."""
    even = shifted(t, -mu)
    return shifted((even - 1 / num_steps).clamp(min=1 / num_steps), mu)
