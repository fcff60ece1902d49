"""ERNIE-Image in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ErnieImagePipeline, ErnieImageTransformer2DModel, FlowMatchEulerDiscreteScheduler
from transformers import Mistral3Model

from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_batch_norm_vae, tiny_mistral, tiny_qwen_tokenizer


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline whose predictions depend on all of its inputs; the tokenizer stands in for Mistral's."""
    torch.manual_seed(seed)
    tokenizer = tiny_qwen_tokenizer(CAPTIONS)
    transformer = ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=64,
        in_channels=16,
        out_channels=16,
        text_in_dim=16,
        rope_axes_dim=(4, 6, 6),
    )
    pipeline = ErnieImagePipeline(
        transformer=fill_zeros(transformer),
        vae=tiny_batch_norm_vae(),
        text_encoder=tiny_mistral(Mistral3Model, tokenizer),
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=4.0),
    )
    pipeline.save_pretrained(folder)
    return folder
