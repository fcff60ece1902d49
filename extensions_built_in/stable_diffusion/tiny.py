"""Stable Diffusion in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel

from toolkit.assets.tiny_text import clip_encoder, clip_tokenizer, projecting_clip_encoder
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_kl_vae

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

EULER = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "steps_offset": 1}
"""As SDXL is released."""
PNDM = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": True}
"""As Stable Diffusion 1.5 is released, but for the last key: the release stops one step short of the data."""
ZERO_SNR = {
    "_class_name": "DDIMScheduler",
    "timestep_spacing": "trailing",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "clip_sample": False,
}
"""v prediction down to pure noise (Lin et al., 2024)."""


def save_tiny(folder: Path, scheduler: Mapping[str, Any] = PNDM, seed: int = 0) -> Path:
    """Write Stable Diffusion 1 or 2 with about 400,000 parameters."""
    torch.manual_seed(seed)
    clip = clip_tokenizer(CAPTIONS)
    encoder = clip_encoder(clip)
    pipeline = StableDiffusionPipeline(
        vae=tiny_kl_vae(shift=None, use_quant_conv=True, use_post_quant_conv=True),
        text_encoder=encoder,
        tokenizer=clip,
        unet=_unet(cross_attention_dim=encoder.config.hidden_size),
        scheduler=_scheduler(scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_tiny_xl(folder: Path, scheduler: Mapping[str, Any] = EULER, seed: int = 0) -> Path:
    """Write SDXL with about 500,000 parameters."""
    torch.manual_seed(seed)
    clip = clip_tokenizer(CAPTIONS)
    encoder, encoder_2 = clip_encoder(clip), projecting_clip_encoder(clip)
    unet = _unet(
        cross_attention_dim=encoder.config.hidden_size + encoder_2.config.hidden_size,
        use_linear_projection=True,
        transformer_layers_per_block=1,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + encoder_2.config.projection_dim,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=tiny_kl_vae(shift=None, use_quant_conv=True, use_post_quant_conv=True),
        text_encoder=encoder,
        text_encoder_2=encoder_2,
        tokenizer=clip,
        tokenizer_2=clip,
        unet=unet,
        scheduler=_scheduler(scheduler),
    )
    pipeline.save_pretrained(folder)
    return folder


def _unet(**config: Any) -> UNet2DConditionModel:
    return fill_zeros(
        UNet2DConditionModel(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(16, 32),
            layers_per_block=1,
            attention_head_dim=2,
            norm_num_groups=4,
            sample_size=8,
            **config,
        )
    )


def _scheduler(config: Mapping[str, Any]) -> Any:
    return getattr(diffusers, config["_class_name"]).from_config({**BETAS, **config})
