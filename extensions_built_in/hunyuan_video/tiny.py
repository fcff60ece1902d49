"""HunyuanVideo in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, LlamaModel

from extensions_built_in.hunyuan_video.family import INSTRUCTION
from toolkit.assets.tiny_text import clip_tokenizer
from toolkit.models.tiny import CAPTIONS, fill_zeros, sharpen, tiny_llm, tiny_qwen_tokenizer

WIDTH = 32


def save_tiny(folder: Path, guidance_embeds: bool = True, seed: int = 0) -> Path:
    """Write a pipeline of about 300,000 parameters whose predictions depend on all of its inputs."""
    torch.manual_seed(seed)
    # one token per word of the instruction, whose first 95 are cut off
    tokenizer = tiny_qwen_tokenizer([INSTRUCTION, *CAPTIONS])
    clip = clip_tokenizer(CAPTIONS)
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=WIDTH // 2,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        guidance_embeds=guidance_embeds,
        text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        rope_axes_dim=(4, 6, 6),
    )
    pipeline = HunyuanVideoPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        vae=_vae(),
        text_encoder=tiny_llm(LlamaModel, tokenizer, num_layers=3),
        tokenizer=tokenizer,
        text_encoder_2=_clip(clip),
        tokenizer_2=clip,
        transformer=fill_zeros(transformer),
    )
    pipeline.save_pretrained(folder)
    return folder


def _vae() -> AutoencoderKLHunyuanVideo:
    return AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 3,
        up_block_types=("HunyuanVideoUpBlock3D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        spatial_compression_ratio=4,
    )


def _clip(tokenizer: Any) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return sharpen(CLIPTextModel(config)).eval()
