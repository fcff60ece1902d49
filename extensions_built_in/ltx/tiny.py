"""LTX-Video in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)

from toolkit.assets.tiny_text import t5_encoder, t5_tokenizer
from toolkit.models.tiny import CAPTIONS, fill_zeros

CHANNELS = 8
WIDTH = 32


def save_tiny(folder: Path, timestep_conditioning: bool = False, seed: int = 0) -> Path:
    """Write a pipeline of about 250,000 parameters whose predictions depend on all of its inputs.

    `timestep_conditioning`: with a decoder that takes a time, as LTX-Video 0.9.1 and later.
    """
    torch.manual_seed(seed)
    tokenizer = t5_tokenizer(CAPTIONS)
    text_encoder = t5_encoder(tokenizer)
    transformer = LTXVideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=WIDTH // 2,
        cross_attention_dim=WIDTH,
        num_layers=1,
        caption_channels=text_encoder.config.d_model,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )
    pipeline = LTXPipeline(
        scheduler=scheduler,
        vae=video_vae(timestep_conditioning),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=fill_zeros(transformer),
    )
    pipeline.save_pretrained(folder)
    return folder


def video_vae(timestep_conditioning: bool, scaling_factor: float = 1.0) -> AutoencoderKLLTXVideo:
    """An AutoencoderKLLTXVideo with stride 8, 4 in time, whose moments are among its weights."""
    vae = AutoencoderKLLTXVideo(
        latent_channels=CHANNELS,
        block_out_channels=(8, 8),
        down_block_types=("LTXVideoDownBlock3D",) * 2,
        decoder_block_out_channels=(8, 8),
        layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, True),
        decoder_spatio_temporal_scaling=(True, True),
        decoder_inject_noise=(False,) * 3,
        downsample_type=("conv", "conv"),
        upsample_residual=(False, False),
        upsample_factor=(1, 1),
        timestep_conditioning=timestep_conditioning,
        scaling_factor=scaling_factor,
        patch_size=2,
    )
    # like real ones, the latents are not centered
    vae.latents_mean.copy_(torch.linspace(-0.2, 0.2, CHANNELS))
    vae.latents_std.copy_(torch.linspace(0.5, 1.0, CHANNELS))
    return fill_zeros(vae)
