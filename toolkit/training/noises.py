"""What becomes of the noise that was drawn, one function per key of `train`: the `noise` of an objective.

x are the latents [B, C, (f,) h, w], e is noise like them. A function gets the noise so far and the batch; the result is
what is mixed into x, and what the target is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from toolkit.training.batch import Batch
from toolkit.training.columns import column
from toolkit.training.objective import Noise

Rule = Callable[[Tensor, Batch], Tensor]
"""(noise, batch) -> noise."""


def changed_by(rules: Sequence[Rule]) -> Noise:
    """The noise after these rules, one after another."""

    def noise(batch: Batch) -> Tensor:
        e = batch.noise
        for rule in rules:
            e = rule(e, batch)
        return e

    return noise


def channel_means(x: Tensor) -> Tensor:
    """Mean of each channel [B, C, 1, ...]."""
    return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)


def closest(e: Tensor, batch: Batch) -> Tensor:
    """Of several noises the one that is nearest to the latents, for each sample on its own.

    After Li et al. (2024), "Immiscible Diffusion", with a choice among noises instead of an assignment in the batch.
    """
    noises = torch.cat([e[:, None], batch.draws["candidates"]], dim=1)
    distances = (noises - batch.latents[:, None]).flatten(2).square().mean(dim=2)
    rows = torch.arange(len(noises), device=noises.device)
    return noises[rows, distances.argmin(dim=1)]


def offset_by(amount: float) -> Rule:
    """Offset noise: each channel is shifted as a whole (Guttenberg, 2023, "Diffusion with Offset Noise").

    e + amount n, with n normal for each channel. The model learns to make very dark and very bright pictures.
    """
    return lambda e, batch: e + amount * column(batch.draws["offset"], e)


def toward_mean(e: Tensor, batch: Batch) -> Tensor:
    """e + mean(x) / 2 for each channel; not for regularization pictures (ai-toolkit's `dynamic_noise_offset`)."""
    return e if batch.is_reg else e + channel_means(batch.latents) / 2


def blurred(e: Tensor, batch: Batch) -> Tensor:
    """e + b (blur(x) - x), b uniform in [0, 2): the model learns to sharpen too (ai-toolkit's `blended_blur_noise`)."""
    x = batch.latents
    return e + 2 * column(batch.draws["blur"], x) * (blur(x) - x)


def blur(x: Tensor) -> Tensor:
    """x [B, C, (f,) h, w] made four times smaller and large again, bilinearly."""
    h, w = x.shape[-2:]
    flat = x.reshape(len(x), -1, h, w)
    small = interpolate(flat, size=(max(1, h // 4), max(1, w // 4)), mode="bilinear")
    return interpolate(small, size=(h, w), mode="bilinear").view(x.shape)


def times(factor: float) -> Rule:
    """e times a factor (`noise_multiplier`)."""
    return lambda e, batch: e * factor


def with_signal(scale: float) -> Rule:
    """e + scale n x, n normal for each channel: noise that looks like the picture (`do_signal_correction_noise`)."""
    return lambda e, batch: e + scale * column(batch.draws["signal"], e) * batch.latents


def with_neighbor(scale: float) -> Rule:
    """e + scale n y, with y the next picture of the batch, n normal for each channel (`do_batch_noise_correction`)."""

    def rule(e: Tensor, batch: Batch) -> Tensor:
        # a short batch can have one picture only, which has no other
        if len(batch) == 1:
            return e
        return e + scale * column(batch.draws["neighbor"], e) * batch.latents.roll(1, dims=0)

    return rule


def shifted_by(scale: float) -> Rule:
    """e + scale n, with n normal for each channel (`random_noise_shift`)."""
    return lambda e, batch: e + scale * column(batch.draws["shift"], e)


def scaled_by(sigma: float) -> Rule:
    """e exp(sigma n), with n normal for each channel (`random_noise_multiplier`)."""
    return lambda e, batch: e * column((sigma * batch.draws["factor"]).exp(), e)
