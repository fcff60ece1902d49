"""HunyuanImage in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLHunyuanImage,
    FlowMatchEulerDiscreteScheduler,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
)
from torch import nn
from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

from extensions_built_in.hunyuan_image.family import TEMPLATE, TEMPLATE_TOKENS
from toolkit.models.tiny import CAPTIONS, fill_zeros, sharpen, tiny_qwen_tokenizer, tiny_qwen_vl

TEXT_LENGTH = 24
WIDTH = 32


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline whose predictions depend on all of its inputs.

    It has 4 million parameters: the network's projection of glyphs is 2048 wide whatever the configuration says.
    """
    torch.manual_seed(seed)
    tokenizer = tiny_qwen_tokenizer([*CAPTIONS, TEMPLATE], TEMPLATE_TOKENS + TEXT_LENGTH)
    transformer = HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        text_embed_2_dim=WIDTH,
        rope_axes_dim=(8, 8),
    )
    vae = AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        spatial_compression_ratio=2,
        sample_size=64,
        scaling_factor=0.5,
    )
    pipeline = HunyuanImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        vae=vae,
        text_encoder=tiny_qwen_vl(tokenizer, num_layers=3),
        tokenizer=tokenizer,
        text_encoder_2=tiny_glyph_encoder(),
        tokenizer_2=ByT5Tokenizer(),
        transformer=fill_zeros(transformer),
    )
    pipeline.save_pretrained(folder)
    return folder


def tiny_glyph_encoder() -> nn.Module:
    """A random T5 over bytes."""
    config = T5Config(
        vocab_size=384, d_model=WIDTH, d_kv=16, d_ff=32, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return sharpen(T5EncoderModel(config)).eval()
