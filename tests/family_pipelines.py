"""What several diffusers pipelines do alike around their networks: fields of the contract test's cases.

Nothing of ours is called here, so that a mistake of ours does not stand on both sides of a comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor


def unpacked(pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """[B, L, 4 C] -> [B, C, h, w]."""
    return pipeline._unpack_latents(tokens, height, width, pipeline.vae_scale_factor)


def kl_latents(pipeline: Any, pixels: Tensor) -> Tensor:
    """As image-to-image pipelines encode a picture or a video, but the mode of the posterior."""
    vae = pipeline.vae
    return (vae.encode(pixels).latent_dist.mode() - (vae.config.get("shift_factor") or 0)) * vae.config.scaling_factor


def trimmed(hidden: Tensor, mask: Tensor) -> list[Tensor]:
    """[B, L, D] -> [l, D] of each text: the tokens that its mask lets the network see."""
    return [row[keep.bool()] for row, keep in zip(hidden, mask, strict=True)]


def load_into_transformer(pipeline: Any, files: Sequence[Path]) -> None:
    """For pipelines that read no LoRAs, though their transformers do."""
    (file,) = files
    pipeline.transformer.load_lora_adapter(load_file(file), prefix="transformer")
