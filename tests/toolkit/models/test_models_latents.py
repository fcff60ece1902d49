"""Packing, position ids and size-dependent schedules are those of diffusers' FLUX pipeline."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, LTXPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from extensions_built_in.ltx.tiny import video_vae
from toolkit.models.flow import flow_steps, linear_mu, steps_of, steps_per_token
from toolkit.models.latents import (
    as_video,
    decode_patches,
    decode_scaled,
    decode_standardized,
    encode_patches,
    encode_scaled,
    encode_standardized,
    grid_ids,
    mode,
    pack,
    scale_shift,
    unpack,
)
from toolkit.models.text import rows
from toolkit.models.tiny import fill_zeros, tiny_batch_norm_vae, tiny_kl_vae, tiny_video_vae


def test_pack_is_diffusers_and_unpack_inverts_it():
    latents = torch.randn(2, 4, 6, 10)
    torch.testing.assert_close(pack(latents), FluxPipeline._pack_latents(latents, 2, 4, 6, 10), rtol=0, atol=0)
    torch.testing.assert_close(unpack(pack(latents), 6, 10), latents, rtol=0, atol=0)
    small = torch.randn(1, 3, 8, 4)
    assert pack(small, 4).shape == (1, 2, 48)
    torch.testing.assert_close(unpack(pack(small, 4), 8, 4, 4), small, rtol=0, atol=0)


def test_grid_ids_are_diffusers():
    wanted = FluxPipeline._prepare_latent_image_ids(1, 3, 5, "cpu", torch.float32)
    torch.testing.assert_close(grid_ids(3, 5), wanted, rtol=0, atol=0)
    assert (grid_ids(3, 5, first=2)[:, 0] == 2).all()


@pytest.mark.parametrize("config", [{}, {"base_image_seq_len": 64, "max_image_seq_len": 512, "max_shift": 2.0}])
def test_mu_is_diffusers(config: dict[str, float]):
    given = (config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096), 0.5)
    for tokens in (16, 256, 1000, 4096, 9000):
        assert linear_mu(tokens, config) == pytest.approx(
            calculate_shift(tokens, *given, config.get("max_shift", 1.15))
        )


def test_flow_steps_suit_the_scheduler():
    dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    dynamic.set_timesteps(**flow_steps(4, 4096, dynamic.config))
    shifted = np.exp(1.15) / (np.exp(1.15) + 1 / np.linspace(1, 0.25, 4) - 1)
    np.testing.assert_allclose(dynamic.sigmas[:-1], shifted, atol=1e-6)

    static = FlowMatchEulerDiscreteScheduler(shift=1.0)
    assert "mu" not in flow_steps(4, 4096, static.config)
    static.set_timesteps(**flow_steps(4, 4096, static.config))
    np.testing.assert_allclose(static.sigmas, [1, 0.75, 0.5, 0.25, 0], atol=1e-6)


def test_a_vae_may_have_no_shift_and_no_distribution():
    assert scale_shift(SimpleNamespace(config=SimpleNamespace(scaling_factor=2.0, shift_factor=None))) == (2.0, 0.0)
    assert scale_shift(SimpleNamespace(config=SimpleNamespace(scaling_factor=2.0))) == (2.0, 0.0)
    assert mode(SimpleNamespace(latent=5)) == 5


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [None, 0.1])
def test_latents_by_scale_and_shift(shift: float | None, dtype: torch.dtype):
    vae, pixels = tiny_kl_vae(shift=shift).to(dtype), torch.rand(1, 3, 8, 8) * 2 - 1
    raw = vae.encode(pixels.to(dtype)).latent_dist.mode().float()
    latents = encode_scaled(vae, pixels)
    torch.testing.assert_close(latents, (raw - (shift or 0)) * 0.5, rtol=0, atol=0)
    decoded = decode_scaled(vae, latents)
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, vae.decode(raw.to(dtype)).sample.float(), rtol=0, atol=1e-5)


@torch.no_grad()
def test_latents_by_channel():
    vae, pixels = tiny_video_vae(), torch.rand(1, 3, 1, 8, 8) * 2 - 1
    raw = vae.encode(pixels).latent_dist.mode()
    latents = encode_standardized(vae, pixels)
    torch.testing.assert_close(latents[:, 2], (raw[:, 2] - vae.config.latents_mean[2]) / vae.config.latents_std[2])
    torch.testing.assert_close(decode_standardized(vae, latents), vae.decode(raw).sample, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("takes_time", [False, True])
def test_latents_by_channel_of_moments_among_the_weights(takes_time: bool):
    vae, pixels = video_vae(takes_time, scaling_factor=2.0), torch.rand(1, 3, 5, 16, 16) * 2 - 1
    raw = vae.encode(pixels).latent_dist.mode()
    latents = encode_standardized(vae, pixels)
    wanted = LTXPipeline._normalize_latents(raw, vae.latents_mean, vae.latents_std, 2.0)
    torch.testing.assert_close(latents, wanted)
    time = torch.zeros(1) if takes_time else None
    torch.testing.assert_close(decode_standardized(vae, latents), vae.decode(raw, time).sample, rtol=0, atol=1e-5)


def test_a_picture_is_a_video_of_one_frame():
    assert as_video(torch.zeros(2, 3, 8, 4)).shape == (2, 3, 1, 8, 4)
    assert as_video(torch.zeros(2, 3, 5, 8, 4)).shape == (2, 3, 5, 8, 4)


def test_given_frames_are_at_step_zero():
    steps, given = torch.tensor([500.0, 250.0]), torch.zeros(2, 4, 1, 8, 4)
    assert steps_per_token(steps, 2, 3, None).tolist() == [[500] * 6, [250] * 6]
    assert steps_per_token(steps, 2, 3, given).tolist() == [[0] * 3 + [500] * 3, [0] * 3 + [250] * 3]


@torch.no_grad()
def test_latents_by_batch_norm():
    vae, pixels = tiny_batch_norm_vae(), torch.rand(1, 3, 8, 12) * 2 - 1
    raw = vae.encode(pixels).latent_dist.mode()
    latents = encode_patches(vae, pixels, 0.5)
    assert latents.shape == (1, 16, 2, 3)
    # channel 6 is the lower left cell of the VAE's channel 1
    wanted = (raw[:, 1, 1::2, ::2] - vae.bn.running_mean[6]) / (vae.bn.running_var[6] + 0.5).sqrt()
    torch.testing.assert_close(latents[:, 6], wanted)
    torch.testing.assert_close(decode_patches(vae, latents, 0.5), vae.decode(raw).sample, rtol=0, atol=1e-5)


def test_times_are_steps_of_the_scheduler():
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    for count, config in ((1000, {}), (50, {"num_train_timesteps": 50})):
        steps = steps_of(t, config, torch.device("cpu"))
        torch.testing.assert_close(steps, torch.tensor([0, count / 4, count]), rtol=0, atol=0)


def test_rows_do_not_share_memory():
    batch = torch.zeros(2, 3)
    one, other = rows(text=batch)
    one["text"].fill_(1)
    assert not other["text"].any() and not batch.any()


def test_fill_zeros_leaves_what_is_not_zero():
    layer = torch.nn.Linear(3, 3)
    torch.nn.init.zeros_(layer.bias)
    weight = layer.weight.detach().clone()
    assert fill_zeros(layer).bias.all() and torch.equal(layer.weight, weight)
