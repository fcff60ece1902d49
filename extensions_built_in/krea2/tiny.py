"""Krea 2 in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Krea2Pipeline,
    Krea2Transformer2DModel,
)
from transformers import Qwen3VLModel

from extensions_built_in.krea2.family import BEFORE
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_qwen3_vl, tiny_qwen_tokenizer, tiny_video_vae


def save_tiny(folder: Path, is_distilled: bool = False, seed: int = 0) -> Path:
    """Write a pipeline whose predictions depend on all of its inputs."""
    torch.manual_seed(seed)
    tokenizer = tiny_qwen_tokenizer([*CAPTIONS, BEFORE])
    transformer = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        timestep_embed_dim=32,
        text_hidden_dim=32,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=32,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6),
    )
    pipeline = Krea2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_image_seq_len=6400),
        vae=tiny_video_vae(),
        text_encoder=tiny_qwen3_vl(Qwen3VLModel, tokenizer),
        tokenizer=tokenizer,
        transformer=fill_zeros(transformer),
        text_encoder_select_layers=(1, 2),
        is_distilled=is_distilled,
    )
    pipeline.save_pretrained(folder)
    return folder
