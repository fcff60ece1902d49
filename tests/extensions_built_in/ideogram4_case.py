"""Ideogram 4 for the contract test: what Ideogram4Pipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import Ideogram4Pipeline
from diffusers.pipelines.ideogram4 import pipeline_ideogram4
from einops import rearrange
from family_subject import Case
from torch import Tensor

from extensions_built_in.ideogram4.tiny import TAPPED, save_tiny

LENGTH = 64


class InOurLayout(Ideogram4Pipeline):
    """The pipeline, its noise drawn as [C, h, w]; it has no negative prompt."""

    def __call__(self, negative_prompt: list[str], generator: list[Any], **options: Any) -> Any:
        size = options["height"] // 4, options["width"] // 4
        noise = torch.cat([torch.randn(1, 16, *size, generator=rng) for rng in generator])
        return super().__call__(latents=rearrange(noise, "b c h w -> b (h w) c"), **options)


def load_pipeline(folder: Path) -> Any:
    """The pipeline, which is told that the text encoder has fewer layers."""
    pipeline_ideogram4.QWEN3_VL_ACTIVATION_LAYERS = TAPPED
    return InOurLayout.from_pretrained(folder)


def unpacked(pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """[B, L, C] -> [B, C, h, w]."""
    return rearrange(tokens, "b (h w) c -> b c h w", h=height // 4)


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """The inverse of what the pipeline does before it decodes."""
    vae = pipeline.vae
    cells = vae.encode(pixels).latent_dist.mode()
    mean, variance = (value.view(1, -1, 1, 1) for value in (vae.bn.running_mean, vae.bn.running_var))
    packed = cells.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 4, 5, 1, 2, 3).flatten(1, 3)
    return (packed - mean) / (variance + vae.config.batch_norm_eps).sqrt()


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Any]:
    """Layers of the language model, without padding."""
    text, _, _, roles = pipeline.encode_prompt(texts, 1, 1, LENGTH, torch.device("cpu"))
    return {"text": [row[role == 3] for row, role in zip(text, roles, strict=True)]}


CASES: dict[str, Case] = {
    "ideogram4": Case(
        "ideogram4",
        save_tiny,
        latents=unpacked,
        encode_image=encode_image,
        encode_prompt=encode_prompt,
        call={"guidance_schedule": None, "max_sequence_length": LENGTH},
        guidance=4.0,
        load_pipeline=load_pipeline,
    )
}
