"""FLUX.2 in miniature for tests: the real classes, random weights, folders in diffusers format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Pipeline, Flux2Transformer2DModel
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from transformers import Mistral3ForConditionalGeneration, Qwen3ForCausalLM

from toolkit.models.tiny import (
    CAPTIONS,
    fill_zeros,
    sharpen,
    tiny_batch_norm_vae,
    tiny_llm,
    tiny_mistral,
    tiny_qwen_tokenizer,
)

TEXT_LENGTH = 80
WIDTH = 16
CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}]"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}[/{{ message['role'] }}]{% endfor %}"
)
"""Messages with content parts, as Mistral's template takes them."""


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a klein whose predictions depend on all of its inputs; 28 layers of Qwen3, for the last that is read."""
    torch.manual_seed(seed)
    tokenizer = tiny_qwen_tokenizer([*CAPTIONS, SYSTEM_MESSAGE], TEXT_LENGTH)
    Flux2KleinPipeline(
        scheduler=scheduler(),
        vae=tiny_batch_norm_vae(),
        text_encoder=tiny_llm(Qwen3ForCausalLM, tokenizer, num_layers=28, width=WIDTH),
        tokenizer=tokenizer,
        transformer=tiny_transformer(guidance_embeds=False),
    ).save_pretrained(folder)
    return folder


def save_tiny_dev(folder: Path, seed: int = 0) -> Path:
    """Write a dev. Its tokenizer stands in for Mistral's, and is not part of a processor for pictures."""
    torch.manual_seed(seed)
    tokenizer = tiny_qwen_tokenizer([*CAPTIONS, SYSTEM_MESSAGE], TEXT_LENGTH)
    tokenizer.chat_template = CHAT_TEMPLATE
    Flux2Pipeline(
        scheduler=scheduler(),
        vae=tiny_batch_norm_vae(),
        text_encoder=tiny_mistral(Mistral3ForConditionalGeneration, tokenizer, num_layers=31),
        tokenizer=tokenizer,
        transformer=tiny_transformer(guidance_embeds=True),
    ).save_pretrained(folder)
    return folder


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """As in the checkpoints."""
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def tiny_transformer(guidance_embeds: bool) -> Any:
    """A Flux2Transformer2DModel, 32 wide, that listens to the few tokens that tell prompts apart."""
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )
    sharpen(transformer.transformer_blocks, 3)
    return fill_zeros(transformer)
