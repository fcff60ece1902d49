"""Lumina-Image 2.0 in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel
from transformers import Gemma2Model

from toolkit.models.tiny import fill_zeros, tiny_gemma_tokenizer, tiny_kl_vae, tiny_llm


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline whose predictions depend on all of its inputs."""
    torch.manual_seed(seed)
    tokenizer = tiny_gemma_tokenizer()
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=32,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 6, 6),
        axes_lens=(300, 64, 64),
        cap_feat_dim=32,
    )
    pipeline = Lumina2Pipeline(
        transformer=fill_zeros(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=tiny_kl_vae(),
        text_encoder=tiny_llm(Gemma2Model, tokenizer),
        tokenizer=tokenizer,
    )
    pipeline.save_pretrained(folder)
    return folder
