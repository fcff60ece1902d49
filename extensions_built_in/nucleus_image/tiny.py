"""Nucleus-Image in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
)
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from extensions_built_in.nucleus_image.family import SYSTEM
from toolkit.models.tiny import fill_zeros, sharpen, tiny_qwen_tokenizer

CAPTIONS = ["a red circle on a blue background", "a photo of a cat, detailed", "two dogs"]


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
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.8, 1.2, 1.0, 0.9],
    )
    pipeline = NucleusMoEImagePipeline(
        transformer=fill_zeros(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=fill_zeros(vae),
        text_encoder=_text_encoder(len(tokenizer)),
        processor=None,
    )
    pipeline.save_pretrained(folder)
    tokenizer.save_pretrained(folder / "processor")
    return folder


def _text_encoder(num_tokens: int) -> Any:
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": num_tokens,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 8,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
    )
    return sharpen(Qwen3VLForConditionalGeneration(config)).eval()
