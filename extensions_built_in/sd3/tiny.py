"""Stable Diffusion 3 in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

from toolkit.assets.tiny_text import clip_tokenizer, projecting_clip_encoder, t5_encoder, t5_tokenizer
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_kl_vae


def save_tiny(folder: Path, has_t5: bool = True, is_35: bool = False, seed: int = 0) -> Path:
    """Write a pipeline of about 400,000 parameters; `is_35`: with 3.5's normalized attention and dual layers."""
    torch.manual_seed(seed)
    clip = clip_tokenizer(CAPTIONS)
    t5 = t5_tokenizer(CAPTIONS)
    t5_model = t5_encoder(t5)
    # side by side they are narrower than T5
    encoders = projecting_clip_encoder(clip, 32), projecting_clip_encoder(clip, 32)
    transformer = SD3Transformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=t5_model.config.d_model,
        caption_projection_dim=32,
        pooled_projection_dim=sum(encoder.config.projection_dim for encoder in encoders),
        pos_embed_max_size=16,
        dual_attention_layers=(0,) if is_35 else (),
        qk_norm="rms_norm" if is_35 else None,
    )
    pipeline = StableDiffusion3Pipeline(
        transformer=fill_zeros(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_kl_vae(),
        text_encoder=encoders[0],
        tokenizer=clip,
        text_encoder_2=encoders[1],
        tokenizer_2=clip,
        text_encoder_3=t5_model if has_t5 else None,
        tokenizer_3=t5 if has_t5 else None,
    )
    pipeline.save_pretrained(folder)
    return folder
