"""HunyuanVideo 1.5 in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)
from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

from extensions_built_in.hunyuan_video_15.family import SYSTEM
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_qwen_tokenizer, tiny_qwen_vl

CHANNELS = 4
WIDTH = 32


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline whose predictions depend on all of its inputs.

    Of 4.6 million parameters, 4.2 are those of a projection whose width is fixed.
    """
    torch.manual_seed(seed)
    # about one token per word of the instruction, whose first 108 are cut off
    tokenizer = tiny_qwen_tokenizer([SYSTEM, *CAPTIONS], length=2048)
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=2 * CHANNELS + 1,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=WIDTH // 2,
        num_layers=2,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        text_embed_2_dim=WIDTH,
        image_embed_dim=WIDTH,
        rope_axes_dim=(4, 6, 6),
        task_type="t2v",
    )
    pipeline = HunyuanVideo15Pipeline(
        text_encoder=tiny_qwen_vl(tokenizer, num_layers=3).model.language_model,
        tokenizer=tokenizer,
        transformer=fill_zeros(transformer),
        vae=_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        text_encoder_2=_byt5(),
        tokenizer_2=ByT5Tokenizer(),
        guider=ClassifierFreeGuidance(),
    )
    pipeline.save_pretrained(folder)
    return folder


def _vae() -> AutoencoderKLHunyuanVideo15:
    return AutoencoderKLHunyuanVideo15(
        latent_channels=CHANNELS, block_out_channels=(8, 8, 8), layers_per_block=1, spatial_compression_ratio=4
    )


def _byt5() -> T5EncoderModel:
    config = T5Config(vocab_size=384, d_model=WIDTH, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()
