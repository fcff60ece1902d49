"""Keys about times, loss and noise that are refused, that contradict each other, or that ai-toolkit reads otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from toolkit.config.errors import ConfigError

Read = Callable[..., Any]
SDXL = {"model": {"arch": "sdxl"}}


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"loss_type": "mean_flow"}, "loss_type: 'mean_flow' is not supported: the model would have to be told"),
        ({"loss_type": "l3"}, "loss_type: 'l3' is not one of mse, mae"),
        ({"loss_target": "unaugmented"}, "loss_target: 'unaugmented' is not supported: pictures are kept as they are"),
        ({"loss_target": "differential_noise"}, "loss_target: 'differential_noise' is not supported: pictures"),
        ({"num_train_timesteps": 500}, "num_train_timesteps: not supported: the model decides"),
        ({"learnable_snr_gos": True}, "learnable_snr_gos: not supported: it follows the losses"),
        ({"img_multiplier": 0.8}, "img_multiplier: not supported: pictures are encoded once"),
        ({"correct_pred_norm": True}, "correct_pred_norm: not supported: the target would follow"),
        ({"standardize_images": True}, "standardize_images: not supported: the model would learn"),
        ({"latent_feature_extractor_path": "x"}, "latent_feature_extractor_path: not supported: it needs a network"),
        ({"diffusion_feature_extractor_path": "x"}, "diffusion_feature_extractor_path: not supported: it needs"),
        ({"min_denoising_steps": 5, "max_denoising_steps": 5}, "min_denoising_steps: must be less than"),
        ({"min_snr_gamma": 5, "snr_gamma": 5}, "snr_gamma: is another weighting than min_snr_gamma"),
        ({"loss_type": "stepped", "t0_loss_target": True}, "t0_loss_target: cannot be combined with loss_type stepped"),
        ({"loss_type": "stepped", "loss_target": "source"}, "loss_target: cannot be combined with loss_type stepped"),
        ({"adaptive_scaling_factor": True, "latent_multiplier": 0.9}, "latent_multiplier: is another scale"),
        ({"timestep_type": "next_sample", "target_noise_multiplier": 2},
         "target_noise_multiplier: cannot be combined with timestep_type next_sample"),
        ({"timestep_type": "next_sample", "next_sample_timesteps": 1}, "next_sample_timesteps: must be at least 2"),
        ({"optimal_noise_pairing_samples": 0}, "optimal_noise_pairing_samples: must be at least 1"),
        ({"multires_noise_iterations": 2, "multires_noise_discount": 2}, "multires_noise_discount: must be at most 1"),
        ({"noise_multiplier": 0}, "noise_multiplier: must be more than 0"),
        ({"max_loss": 0}, "max_loss: must be more than 0"),
    ],
)  # fmt: skip
def test_refused(read: Read, train: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(train=train)
    assert str(caught.value).startswith(f"train.{said}"), str(caught.value)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"train": {"loss_type": "wavelet"}}, "loss_type: compares absolute values of coefficients"),
        ({"train": {"loss_target": "source"}}, "loss_target: compares pictures, all times alike"),
        ({"train": {"min_snr_gamma": 5}}, "min_snr_gamma: weighs by min((1 - t)^2, gamma t^2)"),
        ({"train": {"max_loss": 1}}, "max_loss: limits the loss of each sample"),
        ({"train": {"content_or_style_reg": "style"}}, "content_or_style_reg: is used for regularization pictures"),
        ({"train": {"standardize_latents": True}}, "standardize_latents: to mean 0 and deviation 1"),
        ({"train": {"do_fft_loss": True}}, "do_fft_loss: counts by the sample's weight"),
        ({"train": {"match_noise_norm": True}}, "match_noise_norm: matches the norm of the target"),
        ({"train": {"t0_loss_target": True}, **SDXL}, "t0_loss_target: finds the picture by the model's own schedule"),
        ({"train": {"max_loss_debug": True}}, "max_loss_debug: has no effect: the logged loss shows it"),
        ({"train": {"huber_c": 0.1}}, "huber_c: has no effect: loss_type is not pseudo_huber"),
        ({"train": {"next_sample_timesteps": 4}}, "next_sample_timesteps: has no effect: timestep_type is not"),
        ({"train": {"do_batch_noise_correction": True}}, "do_batch_noise_correction: has no effect: a batch has one"),
        ({"train": {"t0_velocity_equiv_weight": True}}, "t0_velocity_equiv_weight: has no effect: t0_loss"),
        ({"train": {"multires_noise_discount": 0.2}},
         "multires_noise_discount: has no effect: multires_noise_iterations is off"),
        ({"train": {"correct_pred_norm_multiplier": 2}}, "correct_pred_norm_multiplier: has no effect: correct"),
    ],
)  # fmt: skip
def test_one_notice(read: Read, sections: dict[str, Any], said: str) -> None:
    (notice,) = read(**sections).notices
    assert str(notice).startswith(f"train.{said}")


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"min_snr_gamma": 5, "timestep_type": "linear"}, **SDXL},
        {"train": {"match_noise_norm": True}, **SDXL},
        {"train": {"do_batch_noise_correction": True, "batch_size": 2, "batch_noise_correction_scale": 0.2}},
        {"train": {"loss_type": "huber", "huber_c": 0.1, "content_or_style_reg": "balanced"}},
        {"train": {"timestep_type": "next_sample", "next_sample_timesteps": 4, "num_train_timesteps": 1000}},
    ],
)
def test_no_notice(read: Read, sections: dict[str, Any]) -> None:
    assert read(**sections).notices == ()
