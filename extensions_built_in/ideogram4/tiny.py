"""Ideogram 4 in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Ideogram4Pipeline,
    Ideogram4Transformer2DModel,
)
from transformers import Qwen3VLConfig, Qwen3VLModel

from toolkit.models.tiny import fill_zeros, tiny_batch_norm_vae, tiny_qwen_tokenizer

CAPTIONS = ["a red circle on a blue background", "a photo of a cat, detailed", "two dogs"]
WIDTH = 16
TAPPED = (0, 3)
"""The layers of the text encoder that the network sees, the last one among them."""


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline whose predictions depend on all of its inputs."""
    torch.manual_seed(seed)
    tokenizer = tiny_qwen_tokenizer(CAPTIONS)
    # as in the real template, the content may also be a list of parts
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['content']", "(message['content'] if message['content'] is string else message['content'][0]['text'])"
    )
    pipeline = Ideogram4Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=tiny_batch_norm_vae(),
        text_encoder=_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=_transformer(),
        unconditional_transformer=_transformer(),
    )
    pipeline.save_pretrained(folder)
    return folder


def _transformer() -> Any:
    transformer = Ideogram4Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        intermediate_size=64,
        adaln_dim=32,
        llm_features_dim=len(TAPPED) * WIDTH,
        mrope_section=(4, 2, 2),
    )
    return fill_zeros(transformer)


def _text_encoder(num_tokens: int) -> Any:
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": num_tokens,
            "num_hidden_layers": TAPPED[-1] + 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "initializer_range": 0.2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            **sizes,
        },
        vision_config={
            "depth": 1,
            "num_heads": 1,
            "out_hidden_size": WIDTH,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
            **sizes,
        },
    )
    return Qwen3VLModel(config).eval()
