"""Ovis-Image in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, OvisImagePipeline, OvisImageTransformer2DModel
from transformers import Qwen3Model

from extensions_built_in.ovis_image.family import INSTRUCTION, TEMPLATE_TOKENS
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_kl_vae, tiny_llm, tiny_qwen_tokenizer

TEXT_LENGTH = 40


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline whose predictions depend on all of its inputs."""
    torch.manual_seed(seed)
    tokenizer = tiny_qwen_tokenizer([*CAPTIONS, INSTRUCTION], TEMPLATE_TOKENS + TEXT_LENGTH)
    text_encoder = tiny_llm(Qwen3Model, tokenizer)
    transformer = OvisImageTransformer2DModel(
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=text_encoder.config.hidden_size,
        axes_dims_rope=(4, 6, 6),
    )
    pipeline = OvisImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=tiny_kl_vae(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=fill_zeros(transformer),
    )
    pipeline.save_pretrained(folder)
    return folder
