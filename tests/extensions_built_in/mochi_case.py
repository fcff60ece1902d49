"""Mochi 1 for the contract test: what MochiPipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from family_pipelines import trimmed
from family_subject import Case
from torch import Tensor

from extensions_built_in.mochi.tiny import save_tiny


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """The inverse of what the pipeline does before it decodes."""
    vae = pipeline.vae
    moments = (vae.config.latents_mean, vae.config.latents_std)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in moments)
    return (vae.encode(pixels).latent_dist.mode() - mean) * vae.config.scaling_factor / std


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, list[Tensor]]:
    """T5's hidden states where the mask is set."""
    hidden, mask, _, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False)
    return {"text": trimmed(hidden, mask)}


CASES: dict[str, Case] = {
    "mochi": Case(
        "mochi",
        save_tiny,
        encode_image=encode_image,
        encode_prompt=encode_prompt,
        guidance=4.5,
        frames=7,
        sizes=(48, 32),
    )
}
