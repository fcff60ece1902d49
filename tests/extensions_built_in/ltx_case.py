"""LTX-Video for the contract test: what LTXPipeline and LTXImageToVideoPipeline do around their network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from diffusers import LTXImageToVideoPipeline
from family_pipelines import trimmed
from family_subject import Case
from torch import Tensor

from extensions_built_in.ltx.tiny import save_tiny

FRAMES = 9


def ltx_case(images: int = 0, **save: Any) -> Case:
    """A variant of LTX-Video."""
    return Case(
        "ltx",
        partial(save_tiny, **save),
        latents=unpacked,
        encode_image=encode_image,
        encode_prompt=encode_prompt,
        call={"frame_rate": 16},
        numbers={"fps": 16},
        guidance=3.0,
        images=images,
        frames=FRAMES,
        sizes=(64, 32),
        load_pipeline=load_image_to_video if images else None,
    )


def unpacked(pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """[B, L, C] -> [B, C, f, h, w]."""
    stride, frame_stride = pipeline.vae_spatial_compression_ratio, pipeline.vae_temporal_compression_ratio
    return pipeline._unpack_latents(tokens, (FRAMES - 1) // frame_stride + 1, height // stride, width // stride)


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """As in LTXImageToVideoPipeline, but a whole video, and the mode of the posterior."""
    vae = pipeline.vae
    return LTXImageToVideoPipeline._normalize_latents(
        vae.encode(pixels).latent_dist.mode(), vae.latents_mean, vae.latents_std
    )


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, list[Tensor]]:
    """T5's hidden states where the mask is set."""
    hidden, mask, _, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False)
    return {"text": trimmed(hidden, mask)}


def load_image_to_video(folder: Path) -> Any:
    """The pipeline, with the mode of the posterior where it would draw the first frame's latents from it."""
    pipeline = LTXImageToVideoPipeline.from_pretrained(folder)
    encode = pipeline.vae.encode

    def encode_surely(pixels: Tensor) -> Any:
        encoded = encode(pixels)
        encoded.latent_dist.sample = lambda generator: encoded.latent_dist.mode()
        return encoded

    pipeline.vae.encode = encode_surely
    return pipeline


CASES: dict[str, Case] = {
    "ltx": ltx_case(),
    "ltx-0.9.1": ltx_case(timestep_conditioning=True),
    "ltx-i2v": ltx_case(images=1),
}
