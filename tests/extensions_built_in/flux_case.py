"""FLUX.1 for the contract test: what FluxPipeline does around its network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from family_contract import Case
from torch import Tensor

from toolkit.assets.tiny_text import TEXT_LENGTH


def flux_case(save: Callable[[Path], Path], takes_guidance: bool = True) -> Case:
    """A variant of FLUX.1."""
    return Case(
        "flux",
        save,
        latents=unpacked,
        encode_image=encode_image,
        encode_prompt=encode_prompt,
        call={"max_sequence_length": TEXT_LENGTH},
        takes_guidance=takes_guidance,
    )


def unpacked(pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """[B, L, 4 C] -> [B, C, h, w]."""
    return pipeline._unpack_latents(tokens, height, width, pipeline.vae_scale_factor)


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """As in FluxImg2ImgPipeline, but the mode of the posterior."""
    vae = pipeline.vae
    return (vae.encode(pixels).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Tensor]:
    """T5's hidden states and CLIP's pooled vector."""
    text, pooled, _ = pipeline.encode_prompt(texts, texts, max_sequence_length=TEXT_LENGTH)
    return {"text": text, "pooled": pooled}
