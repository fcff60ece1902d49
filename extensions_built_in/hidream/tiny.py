"""HiDream-I1 in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HiDreamImagePipeline, HiDreamImageTransformer2DModel
from transformers import LlamaForCausalLM

from toolkit.assets.tiny_text import TEXT_LENGTH, clip_tokenizer, projecting_clip_encoder, t5_encoder, t5_tokenizer
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_kl_vae, tiny_llm, tiny_qwen_tokenizer


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline whose predictions depend on all of its inputs, with a Llama of its own in it."""
    torch.manual_seed(seed)
    clip, t5 = clip_tokenizer(CAPTIONS), t5_tokenizer(CAPTIONS)
    llama = tiny_qwen_tokenizer(CAPTIONS, TEXT_LENGTH)
    t5_model = t5_encoder(t5)
    clips = [projecting_clip_encoder(clip) for _ in range(2)]
    pipeline = HiDreamImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=tiny_kl_vae(),
        text_encoder=clips[0],
        tokenizer=clip,
        text_encoder_2=clips[1],
        tokenizer_2=clip,
        text_encoder_3=t5_model,
        tokenizer_3=t5,
        text_encoder_4=tiny_llm(LlamaForCausalLM, llama),
        tokenizer_4=llama,
        transformer=_transformer(t5_model.config.d_model, 2 * clips[0].config.projection_dim),
    )
    pipeline.save_pretrained(folder)
    return folder


def _transformer(text_width: int, pooled_width: int) -> Any:
    transformer = HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        caption_channels=[text_width, 32],
        text_emb_dim=pooled_width,
        num_routed_experts=2,
        num_activated_experts=1,
        axes_dims_rope=(8, 4, 4),
        max_resolution=(64, 64),
        llama_layers=[0, 1],
    )
    for name, parameter in transformer.named_parameters():
        if name.endswith("gate.weight"):
            torch.nn.init.normal_(parameter, std=0.1)
    return fill_zeros(transformer)
