"""FLUX.1 in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

from toolkit.assets.tiny_text import clip_encoder, clip_tokenizer, t5_encoder, t5_tokenizer
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_kl_vae


def save_tiny(
    folder: Path,
    guidance_embeds: bool = True,
    seed: int = 0,
    pipeline: str = "FluxPipeline",
    control_channels: int = 0,
    num_single_layers: int = 1,
) -> Path:
    """Write a pipeline of about 150,000 parameters whose predictions depend on all of its inputs.

    `control_channels`: how many the network sees per latent cell beside the noisy latents.
    """
    torch.manual_seed(seed)
    clip, t5 = clip_tokenizer(CAPTIONS), t5_tokenizer(CAPTIONS)
    clip_model, t5_model = clip_encoder(clip), t5_encoder(t5)
    transformer = FluxTransformer2DModel(
        in_channels=4 * (4 + control_channels),
        out_channels=16,
        num_layers=1,
        num_single_layers=num_single_layers,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=t5_model.config.d_model,
        pooled_projection_dim=clip_model.config.hidden_size,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=guidance_embeds, base_shift=0.5, max_shift=1.15
    )
    whole = getattr(diffusers, pipeline)(
        scheduler=scheduler,
        vae=tiny_kl_vae(),
        text_encoder=clip_model,
        tokenizer=clip,
        text_encoder_2=t5_model,
        tokenizer_2=t5,
        transformer=fill_zeros(transformer),
    )
    whole.save_pretrained(folder)
    return folder
