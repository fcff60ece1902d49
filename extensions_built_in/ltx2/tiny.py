"""LTX-2 in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from toolkit.models.tiny import fill_zeros, sharpen, tiny_gemma_tokenizer

CHANNELS = 8
WIDTH = 32
AUDIO_WIDTH = 16
TEXT_LENGTH = 64


def save_tiny(folder: Path, prompt_modulation: bool = False, seed: int = 0) -> Path:
    """Write a pipeline of about 300,000 parameters whose predictions depend on all of its inputs.

    `prompt_modulation`: as LTX-2.3, where the time modulates the text, and connectors have a width per stream.
    """
    torch.manual_seed(seed)
    tokenizer = tiny_gemma_tokenizer(TEXT_LENGTH)
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )
    pipeline = LTX2Pipeline(
        scheduler=scheduler,
        vae=_video_vae(),
        audio_vae=_audio_vae(),
        text_encoder=_text_encoder(tokenizer),
        tokenizer=tokenizer,
        connectors=_connectors(prompt_modulation),
        transformer=_transformer(prompt_modulation),
        vocoder=_vocoder(),
    )
    pipeline.save_pretrained(folder)
    return folder


def _transformer(prompt_modulation: bool) -> LTX2VideoTransformer3DModel:
    return fill_zeros(
        LTX2VideoTransformer3DModel(
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_attention_heads=2,
            attention_head_dim=WIDTH // 2,
            cross_attention_dim=WIDTH,
            audio_in_channels=CHANNELS,
            audio_out_channels=CHANNELS,
            audio_num_attention_heads=2,
            audio_attention_head_dim=AUDIO_WIDTH // 2,
            audio_cross_attention_dim=AUDIO_WIDTH,
            num_layers=1,
            caption_channels=WIDTH,
            gated_attn=prompt_modulation,
            cross_attn_mod=prompt_modulation,
            audio_gated_attn=prompt_modulation,
            audio_cross_attn_mod=prompt_modulation,
            use_prompt_embeddings=not prompt_modulation,
        )
    )


def _connectors(per_modality: bool) -> LTX2TextConnectors:
    audio_width = AUDIO_WIDTH if per_modality else WIDTH
    return LTX2TextConnectors(
        caption_channels=WIDTH,
        text_proj_in_factor=3,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=WIDTH // 2,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=8,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=audio_width // 2,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=8,
        per_modality_projections=per_modality,
        video_hidden_dim=WIDTH,
        audio_hidden_dim=audio_width,
    )


def _text_encoder(tokenizer: Any) -> Gemma3ForConditionalGeneration:
    shared = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config={**shared, "vocab_size": len(tokenizer), "head_dim": 16, "num_key_value_heads": 1},
        vision_config={**shared, "image_size": 16, "patch_size": 8},
        mm_tokens_per_image=4,
    )
    return sharpen(Gemma3ForConditionalGeneration(config)).eval()


def _video_vae() -> AutoencoderKLLTX2Video:
    vae = AutoencoderKLLTX2Video(
        latent_channels=CHANNELS,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 4,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    # like real ones, the latents are not centered
    vae.latents_mean.copy_(torch.linspace(-0.2, 0.2, CHANNELS))
    vae.latents_std.copy_(torch.linspace(0.5, 1.0, CHANNELS))
    return fill_zeros(vae)


def _audio_vae() -> AutoencoderKLLTX2Audio:
    return AutoencoderKLLTX2Audio(
        base_channels=CHANNELS, ch_mult=(1, 1, 1), num_res_blocks=1, latent_channels=2, resolution=16, mel_bins=16
    )


def _vocoder() -> LTX2Vocoder:
    return LTX2Vocoder(
        in_channels=32,
        hidden_channels=8,
        upsample_kernel_sizes=[4],
        upsample_factors=[2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
    )
