"""Distances and weights against formulas that are worked out apart from them, in numpy and by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from toolkit.models.conditions import Conditions
from toolkit.training.batch import Batch
from toolkit.training.distances import ERRORS, Comparison, haar, pseudo_huber, spectrum_errors, wavelet
from toolkit.training.objective import Shot
from toolkit.training.path import Path
from toolkit.training.step import aim, sample_errors
from toolkit.training.weights import clean_slope, evening, min_snr, snr, stepped_slope

SHAPES = [(4, 6, 8), (2, 3, 6, 8)]
T = torch.tensor([0.05, 0.3, 0.5, 0.9], dtype=torch.float64)
BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
KEPT = np.cumprod(1 - BETAS)
"""alpha-bar of SD."""


def shot_of(shape: tuple[int, ...] = SHAPES[0], prediction: str = "flow", t: Tensor = T) -> tuple[Tensor, Shot]:
    rng = torch.Generator().manual_seed(5)
    x, e, guess = (torch.randn(len(t), *shape, generator=rng) for _ in range(3))
    batch = Batch(x, Conditions({}), torch.ones(len(t)), t, e)
    return guess, aim(batch, Path(prediction, {}), t, e)


def ratio(prediction: str, t: float) -> float:
    """Signal to noise."""
    kept = KEPT[round(t * 1000)]
    return ((1 - t) / t) ** 2 if prediction == "flow" else kept / (1 - kept)


@pytest.mark.parametrize("shape", SHAPES)
def test_errors_of_elements(shape: tuple[int, ...]):
    guess, shot = shot_of(shape)
    d = (guess - shot.wanted).numpy()
    np.testing.assert_allclose(Comparison()(guess, shot).numpy(), d**2, rtol=1e-5)
    np.testing.assert_allclose(Comparison(ERRORS["mae"])(guess, shot).numpy(), np.abs(d), rtol=1e-5)
    np.testing.assert_allclose(
        Comparison(pseudo_huber(0.1))(guess, shot).numpy(), np.sqrt(d**2 + 0.01) - 0.1, rtol=1e-4, atol=1e-6
    )


def test_pseudo_huber_is_half_a_square_near_zero_and_linear_far_away():
    error = pseudo_huber(0.5)(torch.tensor([0.0, 0.001, 1000.0], dtype=torch.float64))
    assert error.tolist() == pytest.approx([0, 0.001**2 / (2 * 0.5), 999.5], rel=1e-3)


def test_haar_coefficients_of_one_square():
    # 1 2 / 3 4: average 5, columns differ by -1 + -1, rows by -2 + -2, nothing across
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert haar(x)[0, 0].tolist() == [5, -1, -2, 0]
    assert wavelet(x[None, None])[0, 0].tolist() == [[2, 2], [2, 2]]


@pytest.mark.parametrize("shape", SHAPES)
def test_haar_keeps_squares_so_that_only_absolute_values_make_a_difference(shape: tuple[int, ...]):
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    assert haar(x).square().sum().item() == pytest.approx(x.square().sum().item(), rel=1e-5)
    assert wavelet(x).shape == x.shape and wavelet(x).mean().item() == pytest.approx(haar(x).abs().mean().item())
    odd = x[..., :5, :7]
    assert wavelet(odd).shape == odd.shape


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v"])
def test_the_loss_of_the_picture_is_that_of_the_implied_latents(prediction: str):
    guess, shot = shot_of(prediction=prediction)
    implied = shot.path.clean(shot.noisy, guess, shot.t)
    found = Comparison(slope=clean_slope)(guess, shot)
    torch.testing.assert_close(found, (implied - shot.batch.latents).square(), rtol=1e-3, atol=1e-4)


def test_evened_out_it_is_the_loss_of_the_velocity_again():
    guess, shot = shot_of()
    plain, evened = Comparison()(guess, shot), Comparison(slope=clean_slope, evens=True)(guess, shot)
    torch.testing.assert_close(evened[1:], plain[1:])
    # 1 / t^2 is not more than 100, so at t = 0.05 a quarter is left
    torch.testing.assert_close(evened[0], plain[0] / 4)
    assert evening(torch.tensor([0.0, 0.1, 0.5, 1.0])).tolist() == pytest.approx([100, 100, 4, 1])


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v"])
def test_stepped_is_what_a_step_ahead_and_back_along_the_true_noise_leaves(prediction: str):
    guess, shot = shot_of(prediction=prediction)
    then = (shot.t - 0.05).clamp(min=0)
    ahead = shot.path.step(shot.noisy, guess, shot.t, then)
    a, s = shot.path.coefficients(then, ahead)
    wanted = ((ahead - s * shot.e) / a - shot.batch.latents).square() * 10
    found = Comparison(slope=stepped_slope, factor=10)(guess, shot)
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=1e-4)
    if prediction == "flow":
        slopes = stepped_slope(shot.path, torch.tensor([0.02, 0.5, 1.0], dtype=torch.float64)).tolist()
        assert slopes == pytest.approx([0.02, 0.05 / 0.55, 1], abs=1e-6)


def test_the_spectrum_is_that_of_numpy_and_does_not_see_where_things_are():
    guess, shot = shot_of()
    x = shot.batch.latents
    implied = shot.path.clean(shot.noisy, guess, shot.t)
    amplitudes = [np.abs(np.fft.rfft2(y.numpy(), norm="ortho")) for y in (implied, x)]
    errors = ((amplitudes[0] - amplitudes[1]) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(spectrum_errors(implied, x).numpy(), errors, rtol=1e-4)
    assert spectrum_errors(x.roll(3, dims=-1), x).abs().max() < 1e-6
    means = sample_errors(Comparison(spectrum=True)(guess, shot), shot.batch)
    plain = sample_errors(Comparison()(guess, shot), shot.batch)
    np.testing.assert_allclose((means - plain).numpy(), errors, rtol=1e-3, atol=1e-5)
    evened = sample_errors(Comparison(spectrum=True, spectrum_evens=True)(guess, shot), shot.batch) - plain
    factor = 1 / np.maximum(T.numpy(), 0.1) ** 2
    np.testing.assert_allclose(evened.numpy(), errors * factor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("comparison", [Comparison(matches_norm=True), Comparison(deviation=(2.0, 0.5))])
def test_what_the_network_answers_for_given_frames_does_not_count(comparison: Comparison):
    guess, shot = shot_of(SHAPES[1])
    shot = replace(shot, batch=replace(shot.batch, cond=Conditions({"given": shot.batch.latents[:, :, :1]})))
    elsewhere = guess.clone()
    elsewhere[:, :, 0] *= 10
    found = [sample_errors(comparison(each, shot), shot.batch) for each in (guess, elsewhere)]
    torch.testing.assert_close(found[0], found[1])


def test_a_mask_and_given_frames_limit_the_spectrum():
    guess, shot = shot_of(SHAPES[1])
    mask = torch.zeros(4, 1, 1, 6, 8)
    mask[..., :4] = 2
    shot = replace(shot, batch=replace(shot.batch, mask=mask, cond=Conditions({"given": shot.batch.latents[:, :, :1]})))
    compare = Comparison(spectrum=True)
    first = sample_errors(compare(guess, shot), shot.batch)
    # what is masked counts as twice the squares, and so as the root of 2 times the amplitudes
    implied = shot.path.clean(shot.noisy, guess, shot.t)
    seen = [(x[:, :, 1:] * mask.sqrt()).numpy() for x in (implied, shot.batch.latents)]
    amplitudes = [np.abs(np.fft.rfft2(x, norm="ortho")) for x in seen]
    errors = ((amplitudes[0] - amplitudes[1]) ** 2).mean(axis=(1, 2, 3, 4))
    plain = sample_errors(Comparison()(guess, shot), shot.batch)
    np.testing.assert_allclose((first - plain).numpy(), errors, rtol=1e-3, atol=1e-5)
    elsewhere = guess.clone()
    elsewhere[:, :, 0] += 1
    elsewhere[..., 4:] += 1
    torch.testing.assert_close(sample_errors(compare(elsewhere, shot), shot.batch), first)
    elsewhere[..., :4] += 1
    assert (sample_errors(compare(elsewhere, shot), shot.batch) - first).abs().min() > 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_norm_scale_and_deviation_of_the_prediction(shape: tuple[int, ...]):
    guess, shot = shot_of(shape)
    g, w = guess.numpy(), shot.wanted.numpy()
    norms = [np.sqrt((y.reshape(4, -1) ** 2).sum(axis=1)) for y in (g, w)]
    scaled = g * (norms[1] / norms[0]).reshape(4, *[1] * len(shape))
    np.testing.assert_allclose(
        Comparison(matches_norm=True)(guess, shot).numpy(), (scaled - w) ** 2, rtol=1e-3, atol=1e-6
    )
    np.testing.assert_allclose(Comparison(scale=0.5)(guess, shot).numpy(), (g / 2 - w) ** 2, rtol=1e-4, atol=1e-6)
    found = sample_errors(Comparison(deviation=(2.0, 0.5))(guess, shot), shot.batch)
    stds = g.reshape(4, shape[0], -1).std(axis=2, ddof=1)
    wanted = ((g - w) ** 2).reshape(4, -1).mean(axis=1) + 2 * np.abs(stds - 0.5).mean(axis=1)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_is_that_of_the_paper(gamma: float):
    noise, v, flow = (min_snr(gamma)(Path(kind, {}), T).tolist() for kind in ("epsilon", "v", "flow"))
    for i, t in enumerate(T.tolist()):
        signal = ratio("epsilon", t)
        assert noise[i] == pytest.approx(min(signal, gamma) / signal, rel=1e-3)
        assert v[i] == pytest.approx(min(signal, gamma) / (signal + 1), rel=1e-3)
        assert flow[i] == pytest.approx(min(ratio("flow", t), gamma) * t**2, rel=1e-5)


def test_snr_weighs_by_gamma_over_the_ratio():
    noise, v, flow = (snr(5.0)(Path(kind, {}), T).tolist() for kind in ("epsilon", "v", "flow"))
    for i, t in enumerate(T.tolist()):
        assert noise[i] == pytest.approx(5 / ratio("epsilon", t), rel=1e-3)
        assert v[i] == pytest.approx(5 / (ratio("v", t) + 1), rel=1e-3)
        assert flow[i] == pytest.approx(5 * t**2, rel=1e-5)


@pytest.mark.parametrize("scheduler", [{}, {"rescale_betas_zero_snr": True}])
@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v"])
def test_weights_are_finite_at_both_ends(prediction: str, scheduler: dict[str, bool]):
    path, ends = Path(prediction, scheduler), torch.tensor([0.0, 0.999, 1.0], dtype=torch.float64)
    for function in (min_snr(5.0), snr(5.0), clean_slope, stepped_slope):
        values = function(path, ends)
        assert values.isfinite().all() and (values >= -1e-6).all(), function
    assert math.isfinite(float(evening(clean_slope(path, ends)).max()))
