"""LongCat-Image in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LongCatImagePipeline, LongCatImageTransformer2DModel

from extensions_built_in.longcat_image.family import BEFORE
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_kl_vae, tiny_qwen_tokenizer, tiny_qwen_vl

TEXT_LENGTH = 24
WIDTH = 32


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline whose predictions depend on all of its inputs, without what rewrites prompts."""
    torch.manual_seed(seed)
    tokenizer = tiny_qwen_tokenizer([*CAPTIONS, BEFORE], TEXT_LENGTH)
    transformer = LongCatImageTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=[4, 6, 6],
    )
    pipeline = LongCatImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        # the pipeline counts on 16 channels
        vae=tiny_kl_vae(latent_channels=16),
        text_encoder=tiny_qwen_vl(tokenizer),
        tokenizer=tokenizer,
        text_processor=None,
        transformer=fill_zeros(transformer),
    )
    pipeline.save_pretrained(folder)
    return folder
