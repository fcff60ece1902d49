"""Wan in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    SkyReelsV2ImageToVideoPipeline,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    UMT5Config,
    UMT5EncoderModel,
)

from toolkit.assets.tiny_text import t5_tokenizer
from toolkit.models.tiny import CAPTIONS, fill_zeros

WIDTH = 32
CHANNELS = 4


def save_tiny(
    folder: Path,
    image_to_video: bool = False,
    image_tokens: bool = False,
    boundary: float | None = None,
    small: bool = False,
    skyreels: bool = False,
    seed: int = 0,
) -> Path:
    """Write a pipeline of about 100,000 parameters whose predictions depend on all of its inputs.

    `image_to_video`: a network with a condition; `image_tokens`: and a CLIP encoder; `boundary`: two experts;
    `small`: as TI2V-5B, a time per token and a VAE that packs 2x2 pixels; `skyreels`: SkyReels V2's classes.
    """
    torch.manual_seed(seed)
    tokenizer = t5_tokenizer(CAPTIONS)
    parts: dict[str, Any] = {
        "tokenizer": tokenizer,
        "text_encoder": _text_encoder(len(tokenizer)),
        "vae": _vae(small),
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
        ),
        "transformer": _transformer(image_to_video, image_tokens, skyreels),
    }
    if image_tokens:
        parts |= {
            "image_encoder": _image_encoder(CLIPVisionModelWithProjection if skyreels else CLIPVisionModel),
            "image_processor": _image_processor(),
        }
    if skyreels:
        cls = SkyReelsV2ImageToVideoPipeline if image_to_video else SkyReelsV2Pipeline
    else:
        cls = WanImageToVideoPipeline if image_to_video else WanPipeline
        parts["transformer_2"] = None if boundary is None else _transformer(image_to_video, image_tokens)
        parts |= {"boundary_ratio": boundary, "expand_timesteps": small}
    cls(**parts).save_pretrained(folder)
    return folder


def _transformer(image_to_video: bool, image_tokens: bool, skyreels: bool = False) -> Any:
    cls = SkyReelsV2Transformer3DModel if skyreels else WanTransformer3DModel
    return fill_zeros(
        cls(
            num_attention_heads=2,
            attention_head_dim=WIDTH // 2,
            in_channels=2 * CHANNELS + 4 if image_to_video else CHANNELS,
            out_channels=CHANNELS,
            text_dim=WIDTH,
            freq_dim=WIDTH,
            ffn_dim=2 * WIDTH,
            num_layers=1,
            image_dim=WIDTH if image_tokens else None,
            added_kv_proj_dim=WIDTH if image_tokens else None,
            rope_max_seq_len=32,
        )
    )


def _vae(small: bool) -> AutoencoderKLWan:
    packed = {"patch_size": 2, "in_channels": 12, "out_channels": 12, "is_residual": True} if small else {}
    return AutoencoderKLWan(
        base_dim=8,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.1, -0.1, 0.2, 0.0],
        latents_std=[0.5, 0.6, 0.4, 0.5],
        scale_factor_spatial=8 if small else 4,
        scale_factor_temporal=4,
        **packed,
    )


def _text_encoder(words: int) -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=words, d_model=WIDTH, d_kv=16, d_ff=64, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return UMT5EncoderModel(config).eval()


def _image_encoder(cls: Any) -> Any:
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    return cls(config).eval()


def _image_processor() -> Any:
    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
