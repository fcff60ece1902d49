"""Nucleus-Image in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
)
from transformers import Qwen3VLForConditionalGeneration

from extensions_built_in.nucleus_image.family import SYSTEM
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_qwen3_vl, tiny_qwen_tokenizer, tiny_video_vae


@torch.no_grad()
def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline whose predictions depend on all of its inputs: one dense block and one of experts.

    Of the processor there is only the tokenizer, as the rest needs torchvision.
    """
    torch.manual_seed(seed)
    tokenizer = tiny_qwen_tokenizer([*CAPTIONS, SYSTEM])
    transformer = NucleusMoEImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
        mlp_ratio=6.0,
        dense_moe_strategy="leave_first_block_dense",
        num_experts=4,
        moe_intermediate_dim=32,
        capacity_factors=2.0,
    )
    for block in transformer.transformer_blocks:
        if block.moe_enabled:
            block.img_mlp.experts.gate_up_proj.normal_(std=0.2)
            block.img_mlp.experts.down_proj.normal_(std=0.2)
    pipeline = NucleusMoEImagePipeline(
        transformer=fill_zeros(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=tiny_video_vae(),
        text_encoder=tiny_qwen3_vl(Qwen3VLForConditionalGeneration, tokenizer, 8),
        processor=None,
    )
    pipeline.save_pretrained(folder)
    tokenizer.save_pretrained(folder / "processor")
    return folder
