"""AuraFlow in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler

from toolkit.assets.tiny_text import t5_encoder, t5_tokenizer
from toolkit.models.tiny import CAPTIONS, fill_zeros, sharpen, tiny_kl_vae


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline of about 300,000 parameters; T5 stands in for the larger encoder of the same kind."""
    torch.manual_seed(seed)
    tokenizer = t5_tokenizer(CAPTIONS)
    encoder = t5_encoder(tokenizer)
    transformer = AuraFlowTransformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=encoder.config.d_model,
        caption_projection_dim=32,
        pos_embed_max_size=256,
    )
    pipeline = AuraFlowPipeline(
        transformer=sharpen(fill_zeros(transformer), 2.0),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
        vae=tiny_kl_vae(shift=None),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )
    pipeline.save_pretrained(folder)
    return folder
