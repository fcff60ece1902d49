"""How far a prediction is from what was wanted: the `distance` of an objective.

All of them work on the difference of the two, [B, C, (f,) h, w]; a mask and `given` frames are applied by the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad

from toolkit.training.batch import Batch
from toolkit.training.columns import column, on_device
from toolkit.training.objective import Shot
from toolkit.training.path import Path
from toolkit.training.scaling import deviations
from toolkit.training.weights import clean_slope, evening

Error = Callable[[Tensor], Tensor]
"""Difference [B, C, (f,) h, w] -> error of every element, of the same shape."""
Slope = Callable[[Path, Tensor], Tensor]
"""(path, t [B]) -> factor of a difference [B]: what it becomes somewhere else than in the prediction."""


def pseudo_huber(c: float) -> Error:
    """sqrt(d^2 + c^2) - c: quadratic below c, linear above (Charbonnier et al., 1997; Song and Dhariwal, 2023)."""
    return lambda difference: (difference.square() + c**2).sqrt() - c


def haar(x: Tensor) -> Tensor:
    """One level of the orthonormal Haar transform (Haar, 1910): [..., h, w] -> [..., h/2, w/2, 4].

    Averages, differences between columns, between rows, and across. Rows and columns of an odd number are repeated.
    """
    h, w = x.shape[-2:]
    even = pad(x.reshape(1, -1, h, w), (0, w % 2, 0, h % 2), mode="replicate")
    a, b, c, d = rearrange(even, "1 n (h p) (w q) -> (p q) n h w", p=2, q=2)
    coefficients = torch.stack([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], dim=-1) / 2
    return coefficients.view(*x.shape[:-2], *coefficients.shape[-3:])


def wavelet(difference: Tensor) -> Tensor:
    """Mean absolute Haar coefficient of each 2x2 cells (Korkmaz et al., 2024, "wavelet-domain losses").

    Absolute, because squares of orthonormal coefficients add up to those of the cells: the plain squared error.
    """
    h, w = difference.shape[-2:]
    errors = haar(difference).abs().mean(dim=-1)
    return errors.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)[..., :h, :w]


ERRORS: dict[str, Error] = {"mse": torch.square, "mae": torch.abs, "wavelet": wavelet}


@dataclass(frozen=True)
class Comparison:
    """An error, and where it is measured; further errors that are added to it."""

    error: Error = torch.square
    slope: Slope | None = None
    """Where the difference is measured; None: in the prediction itself."""
    evens: bool = False
    """Whether a measured square counts as that of the prediction again."""
    factor: float = 1.0
    """Of the error."""
    matches_norm: bool = False
    """Scales the prediction to the norm of what is wanted."""
    scale: float = 1.0
    """Of the prediction."""
    spectrum: bool = False
    """Adds the error of the spectrum of the implied x."""
    spectrum_evens: bool = False
    deviation: tuple[float, float] | None = None
    """(weight, wanted deviation): adds how far the deviation of each channel of the prediction is from that."""

    def __call__(self, guess: Tensor, shot: Shot) -> Tensor:
        """Error of every element, like the latents, fp32."""
        guess = guess.float()
        if self.matches_norm:
            norms = [_norms(_trained(x, shot.batch)) for x in (shot.wanted, guess)]
            guess = guess * column(norms[0] / norms[1].clamp(min=1e-12), guess)
        if self.scale != 1:
            guess = guess * self.scale
        difference = guess - shot.wanted
        error = self._error(difference, shot)
        if self.spectrum:
            error = error + column(self._spectrum(difference, shot), error)
        if self.deviation:
            weight, wanted = self.deviation
            off = (deviations(_trained(guess, shot.batch)) - wanted).abs()
            error = error + weight * column(off.flatten(1).mean(dim=1), error)
        return error

    def _error(self, difference: Tensor, shot: Shot) -> Tensor:
        if self.slope is None:
            return self.error(difference) * self.factor if self.factor != 1 else self.error(difference)
        slope = self.slope(shot.path, shot.t)
        error = self.error(difference * on_device(slope, difference))
        factor = self.factor * (evening(slope) if self.evens else torch.ones_like(slope))
        return error * on_device(factor, error)

    def _spectrum(self, difference: Tensor, shot: Shot) -> Tensor:
        slope, x = clean_slope(shot.path, shot.t), shot.batch.latents
        implied = x - difference * on_device(slope, x)
        errors = spectrum_errors(*(_visible(latents, shot.batch) for latents in (implied, x)))
        return errors * on_device(evening(slope), errors) if self.spectrum_evens else errors


def _visible(x: Tensor, batch: Batch) -> Tensor:
    """What of x counts: by the root of the mask, because a spectrum's squares add up to those of the cells."""
    return _trained(x if batch.mask is None else x * batch.mask.sqrt(), batch)


def _trained(x: Tensor, batch: Batch) -> Tensor:
    """x without the frames that are given, where nothing holds the prediction."""
    return x[:, :, batch.num_given :] if batch.num_given else x


def spectrum_errors(guess: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared difference of the amplitudes of the two-dimensional Fourier transforms, for each sample [B].

    After Jiang et al. (2021), "Focal Frequency Loss", with amplitudes only, as ai-toolkit's `do_fft_loss`.
    """
    amplitudes = [torch.fft.rfft2(x.float(), norm="ortho").abs() for x in (guess, wanted)]
    return (amplitudes[0] - amplitudes[1]).square().flatten(1).mean(dim=1)


def _norms(x: Tensor) -> Tensor:
    """The norm of each sample [B]."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)
