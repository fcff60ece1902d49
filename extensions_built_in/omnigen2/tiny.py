"""OmniGen2 in miniature for tests: random weights, a folder as the published checkpoint is laid out."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from extensions_built_in.omnigen2.family import SYSTEM
from extensions_built_in.omnigen2.model import OmniGen2Transformer2DModel
from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_kl_vae, tiny_qwen_tokenizer, tiny_qwen_vl


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a checkpoint whose predictions depend on all of its inputs."""
    torch.manual_seed(seed)
    tokenizer = tiny_qwen_tokenizer([*CAPTIONS, SYSTEM])
    transformer = OmniGen2Transformer2DModel(
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 4, 4),
        text_feat_dim=32,
    )
    fill_zeros(transformer).save_pretrained(folder / "transformer")
    tiny_kl_vae().save_pretrained(folder / "vae")
    tiny_qwen_vl(tokenizer).save_pretrained(folder / "mllm")
    tokenizer.save_pretrained(folder / "processor")
    index = {
        "_class_name": "OmniGen2Pipeline",
        "mllm": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
        "processor": ["transformers", "Qwen2_5_VLProcessor"],
        "scheduler": ["scheduling_flow_match_euler_discrete_time_shifting", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["transformer_omnigen2", "OmniGen2Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
