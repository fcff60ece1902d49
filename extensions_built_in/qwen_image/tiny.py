"""Qwen-Image in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline, QwenImageTransformer2DModel
from transformers import Qwen2VLImageProcessorPil

from extensions_built_in.qwen_image.family import CHANGE, DESCRIBE
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_qwen_tokenizer, tiny_qwen_vl, tiny_video_vae


def save_tiny(folder: Path, edit: bool = False, seed: int = 0) -> Path:
    """Write a pipeline whose predictions depend on all of its inputs; `edit`: with what looks at pictures."""
    torch.manual_seed(seed)
    tokenizer = tiny_qwen_tokenizer([*CAPTIONS, DESCRIBE, CHANGE], length=8192)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    pipeline = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02, max_shift=0.9),
        vae=tiny_video_vae(),
        text_encoder=tiny_qwen_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=fill_zeros(transformer),
    )
    pipeline.save_pretrained(folder)
    if edit:
        size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
        Qwen2VLImageProcessorPil(size=size).save_pretrained(folder / "processor")
    return folder
