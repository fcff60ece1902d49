"""Qwen-Image 2.1 in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    QwenImage21Transformer2DModel,
)
from transformers import Qwen3VLForConditionalGeneration

from extensions_built_in.qwen_image_21.family import SYSTEM
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_qwen3_vl, tiny_qwen_tokenizer


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write the parts of a pipeline whose predictions depend on all of its inputs.

    Of the processor there is only the tokenizer, as the rest needs torchvision.
    """
    torch.manual_seed(seed)
    tokenizer = tiny_qwen_tokenizer([*CAPTIONS, SYSTEM])
    transformer = QwenImage21Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=32,
        mlp_ratio=2,
        axes_dims_rope=(4, 6, 6),
    )
    vae = AutoencoderKLQwenImage21(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.8, 1.2, 1.0, 0.9],
    )
    parts: dict[str, Any] = {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": fill_zeros(vae),
        "text_encoder": tiny_qwen3_vl(Qwen3VLForConditionalGeneration, tokenizer),
        "processor": tokenizer,
        "transformer": fill_zeros(transformer),
    }
    index: dict[str, Any] = {"_class_name": "QwenImage21Pipeline", "sample_sigmas": [1.0, 0.8, 0.5, 0.3, 0.1]}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        index[name] = ["transformers" if name in ("text_encoder", "processor") else "diffusers", type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
