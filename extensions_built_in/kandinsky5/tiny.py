"""Kandinsky 5 in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, Kandinsky5Transformer3DModel
from transformers import CLIPTextConfig, CLIPTextModel

from extensions_built_in.kandinsky5.family import CLIP_LENGTH, TURN
from toolkit.assets.tiny_text import clip_tokenizer
from toolkit.models.tiny import CAPTIONS, fill_zeros, sharpen, tiny_qwen_tokenizer, tiny_qwen_vl


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write the parts of a pipeline whose predictions depend on all of its inputs.

    Of the processor there is only the tokenizer, as the rest needs torchvision.
    """
    torch.manual_seed(seed)
    tokenizer, tokenizer_2 = tiny_qwen_tokenizer([*CAPTIONS, TURN], length=1024), clip_tokenizer(CAPTIONS)
    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=32,
        in_text_dim2=32,
        time_dim=32,
        out_visual_dim=4,
        model_dim=32,
        ff_dim=64,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 6, 6),
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        scaling_factor=0.5,
        shift_factor=0.1,
    )
    parts: dict[str, tuple[str, Any]] = {
        "transformer": ("diffusers", fill_zeros(transformer)),
        "vae": ("diffusers", vae),
        "scheduler": ("diffusers", FlowMatchEulerDiscreteScheduler(shift=3.0)),
        "text_encoder": ("transformers", tiny_qwen_vl(tokenizer)),
        "tokenizer": ("transformers", tokenizer),
        "text_encoder_2": ("transformers", _whole(tokenizer_2)),
        "tokenizer_2": ("transformers", tokenizer_2),
    }
    for name, (_, part) in parts.items():
        part.save_pretrained(folder / name)
    index = {name: [library, type(part).__name__] for name, (library, part) in parts.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Kandinsky5T2IPipeline", **index}))
    return folder


def _whole(tokenizer: Any) -> Any:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CLIP_LENGTH,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return sharpen(CLIPTextModel(config)).eval()
