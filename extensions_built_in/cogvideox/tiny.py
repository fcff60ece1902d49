"""CogVideoX in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)

from toolkit.assets.tiny_text import TEXT_LENGTH, t5_encoder, t5_tokenizer
from toolkit.models.tiny import CAPTIONS, fill_zeros

CHANNELS = 4
WIDTH = 32


def save_tiny(folder: Path, rotary: bool = True, snr_shift: float = 1.0, seed: int = 0) -> Path:
    """Write a pipeline of about 300,000 parameters whose predictions depend on all of its inputs.

    The 5B has rotary positions and its signal-to-noise ratio unshifted; the 2B has fixed positions and shift 3.
    """
    torch.manual_seed(seed)
    tokenizer = t5_tokenizer(CAPTIONS)
    text_encoder = t5_encoder(tokenizer)
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=WIDTH // 2,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        time_embed_dim=WIDTH,
        text_embed_dim=text_encoder.config.d_model,
        num_layers=1,
        sample_width=6,
        sample_height=8,
        sample_frames=9,
        max_text_seq_length=TEXT_LENGTH,
        use_rotary_positional_embeddings=rotary,
    )
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=snr_shift,
        clip_sample=False,
    )
    pipeline = CogVideoXPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=_vae(),
        transformer=fill_zeros(transformer),
        scheduler=scheduler,
    )
    pipeline.save_pretrained(folder)
    return folder


def _vae() -> AutoencoderKLCogVideoX:
    return AutoencoderKLCogVideoX(
        latent_channels=CHANNELS,
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
    )
