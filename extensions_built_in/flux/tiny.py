"""FLUX.1 in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from toolkit.assets.tiny_text import clip_encoder, clip_tokenizer, t5_encoder, t5_tokenizer
from toolkit.models.tiny import fill_zeros

CAPTIONS = ["a red circle on a blue background", "a photo of a cat, detailed", "two dogs"]


def save_tiny(folder: Path, guidance_embeds: bool = True, seed: int = 0) -> Path:
    """Write a pipeline of about 150,000 parameters whose predictions depend on all of its inputs."""
    torch.manual_seed(seed)
    clip, t5 = clip_tokenizer(CAPTIONS), t5_tokenizer(CAPTIONS)
    clip_model, t5_model = clip_encoder(clip), t5_encoder(t5)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=t5_model.config.d_model,
        pooled_projection_dim=clip_model.config.hidden_size,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        scaling_factor=0.5,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=guidance_embeds, base_shift=0.5, max_shift=1.15
    )
    pipeline = FluxPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=clip_model,
        tokenizer=clip,
        text_encoder_2=t5_model,
        tokenizer_2=t5,
        transformer=fill_zeros(transformer),
    )
    pipeline.save_pretrained(folder)
    return folder
