"""ERNIE-Image for the contract test: what ErnieImagePipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from family_subject import Case
from torch import Tensor

from extensions_built_in.ernie_image.tiny import save_tiny


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """The inverse of what the pipeline does before it decodes."""
    vae = pipeline.vae
    cells = pipeline._patchify_latents(vae.encode(pixels).latent_dist.mode())
    mean, variance = (value.view(1, -1, 1, 1) for value in (vae.bn.running_mean, vae.bn.running_var))
    return (cells - mean) / (variance + 1e-5).sqrt()


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Any]:
    """The language model's hidden states."""
    return {"text": pipeline.encode_prompt(texts, device=pipeline.device)}


CASES: dict[str, Case] = {
    "ernie-image": Case("ernie_image", save_tiny, encode_image=encode_image, encode_prompt=encode_prompt, guidance=4.0)
}
