"""Mochi 1 in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLMochi,
    FlowMatchEulerDiscreteScheduler,
    MochiPipeline,
    MochiTransformer3DModel,
)

from toolkit.assets.tiny_text import t5_encoder, t5_tokenizer
from toolkit.models.tiny import CAPTIONS, fill_zeros


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline of about 350,000 parameters whose predictions depend on all of its inputs."""
    torch.manual_seed(seed)
    tokenizer = t5_tokenizer(CAPTIONS)
    text_encoder = t5_encoder(tokenizer)
    transformer = MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=text_encoder.config.d_model,
        time_embed_dim=16,
    )
    vae = AutoencoderKLMochi(
        latent_channels=12,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        add_attention_block=(False,) * 5,
    )
    pipeline = MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=fill_zeros(transformer),
    )
    pipeline.save_pretrained(folder)
    return folder
