"""PixArt in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtSigmaPipeline, PixArtTransformer2DModel

from toolkit.assets.tiny_text import t5_encoder, t5_tokenizer
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_kl_vae


def save_tiny(folder: Path, is_alpha: bool = False, seed: int = 0) -> Path:
    """Write PixArt-Sigma, or PixArt-alpha for 1024 pixels, with about 250,000 parameters."""
    torch.manual_seed(seed)
    tokenizer = t5_tokenizer(CAPTIONS)
    encoder = t5_encoder(tokenizer)
    transformer = PixArtTransformer2DModel(
        # a third of the width is each for height, width and their ratio
        num_attention_heads=3,
        attention_head_dim=16,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=48,
        sample_size=128 if is_alpha else 16,
        caption_channels=encoder.config.d_model,
    )
    pipeline = (PixArtAlphaPipeline if is_alpha else PixArtSigmaPipeline)(
        transformer=fill_zeros(transformer),
        scheduler=DPMSolverMultistepScheduler(),
        vae=tiny_kl_vae(shift=None),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )
    pipeline.save_pretrained(folder)
    return folder
