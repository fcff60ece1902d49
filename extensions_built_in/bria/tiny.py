"""BRIA in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import BriaPipeline, BriaTransformer2DModel, FlowMatchEulerDiscreteScheduler

from toolkit.assets.tiny_text import t5_encoder, t5_tokenizer
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_kl_vae


def save_tiny(folder: Path, dynamic: bool = False, seed: int = 0) -> Path:
    """Write a pipeline whose predictions depend on all of its inputs; `dynamic`: with noise shifted by size."""
    torch.manual_seed(seed)
    tokenizer = t5_tokenizer(CAPTIONS)
    text_encoder = t5_encoder(tokenizer)
    transformer = BriaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=text_encoder.config.d_model,
        axes_dims_rope=[4, 6, 6],
    )
    pipeline = BriaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic),
        vae=tiny_kl_vae(shift=None),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=fill_zeros(transformer),
    )
    pipeline.save_pretrained(folder)
    return folder
