"""Krea 2 for the contract test: what Krea2Pipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from family_subject import Case
from torch import Tensor

from extensions_built_in.krea2.tiny import save_tiny


def unpacked(pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """[B, L, 4 C] -> [B, C, h, w]."""
    return pipeline._unpack_latents(tokens, height, width).squeeze(2)


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """The mode of the posterior, normalized."""
    config = pipeline.vae.config
    mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (config.latents_mean, config.latents_std))
    return (pipeline.vae.encode(pixels.unsqueeze(2)).latent_dist.mode().squeeze(2) - mean) / std


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Any]:
    """Two layers of the language model beside each other, without padding."""
    text, mask = pipeline.encode_prompt(texts)
    return {"text": [row[keep].flatten(1) for row, keep in zip(text, mask, strict=True)]}


CASES: dict[str, Case] = {
    "krea2": Case(
        "krea2",
        save_tiny,
        latents=unpacked,
        encode_image=encode_image,
        encode_prompt=encode_prompt,
        guidance=4.5,
    ),
}
