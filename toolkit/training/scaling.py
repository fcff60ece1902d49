"""What becomes of the latents before noise is mixed in, and of what is shown and asked for after it.

x are the latents [B, C, (f,) h, w].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from toolkit.models.conditions import hold
from toolkit.models.family import Family
from toolkit.training.batch import Batch
from toolkit.training.columns import column, on_device
from toolkit.training.noises import channel_means
from toolkit.training.objective import Adjust, Prepare, Shot

Scaling = Callable[[Tensor], Tensor]
"""Latents -> latents."""


def prepared_by(scalings: Sequence[Scaling]) -> Prepare:
    """A batch whose latents, and those of guidance pairs, went through these functions."""

    def prepare(batch: Batch) -> Batch:
        latents, pairs = batch.latents, batch.pair_latents
        for scale in scalings:
            latents, pairs = scale(latents), None if pairs is None else scale(pairs)
        return replace(batch, latents=latents, pair_latents=pairs)

    return prepare


def deviations(x: Tensor) -> Tensor:
    """Deviation of each channel [B, C, 1, ...]."""
    return column(x.flatten(2).std(dim=2), x)


def standardized(x: Tensor) -> Tensor:
    """Mean 0 and deviation 1 for each channel of each sample (`standardize_latents`)."""
    return (x - channel_means(x)) / (deviations(x) + 1e-6)


def of_unit_deviation(x: Tensor) -> Tensor:
    """Deviation 1 for each channel of each sample (`adaptive_scaling_factor`)."""
    return x / (deviations(x) + 1e-6)


def multiplied(factor: float) -> Scaling:
    """x times a factor (`latent_multiplier`)."""
    return lambda x: x * factor


def bent(noisy: float = 1.0, target_noise: float = 1.0, amplification: float = 0.0) -> Adjust:
    """Shows `noisy` times the point of the path, and asks for the target of other noise or of an amplified picture.

    The target is that of x (1 + amplification (1 - t)) and e times `target_noise`, as ai-toolkit's
    `noisy_latent_multiplier`, `target_noise_multiplier` and `do_signal_amplification`.
    """

    def adjust(family: Family, shot: Shot) -> Shot:
        x, e = shot.batch.latents, shot.e
        if amplification:
            gain = 1 + amplification * (1 - shot.t)
            x = x * on_device(gain, x)
        wanted = shot.path.wanted(x, e * target_noise, shot.t)
        return replace(shot, noisy=hold(shot.noisy * noisy, shot.batch.cond), wanted=wanted)

    return adjust
