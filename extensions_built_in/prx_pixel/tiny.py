"""PRX Pixel in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PRXPixelPipeline
from diffusers.models.transformers.transformer_prx import PRXTransformer2DModel
from transformers import Qwen3VLTextConfig, Qwen3VLTextModel

from toolkit.models.tiny import fill_zeros, sharpen, tiny_qwen_tokenizer

CAPTIONS = ["a red circle on a blue background", "a photo of a cat, detailed", "two dogs"]


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline whose predictions depend on all of its inputs."""
    torch.manual_seed(seed)
    tokenizer = tiny_qwen_tokenizer(CAPTIONS)
    transformer = PRXTransformer2DModel(
        in_channels=3,
        patch_size=4,
        context_in_dim=32,
        hidden_size=32,
        mlp_ratio=2.0,
        num_heads=2,
        depth=2,
        axes_dim=[8, 8],
        bottleneck_size=16,
        resolution_embeds=True,
    )
    pipeline = PRXPixelPipeline(
        transformer=fill_zeros(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        prompt_max_tokens=32,
        noise_scale=1.5,
    )
    pipeline.save_pretrained(folder)
    return folder


def _text_encoder(num_tokens: int) -> Any:
    config = Qwen3VLTextConfig(
        vocab_size=num_tokens,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
    )
    return sharpen(Qwen3VLTextModel(config)).eval()
