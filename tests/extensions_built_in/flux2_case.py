"""FLUX.2 for the contract test: what the Flux2 pipelines do around their network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers import Flux2KleinPipeline
from family_subject import Case
from PIL import Image
from torch import Tensor

from extensions_built_in.flux2.tiny import TEXT_LENGTH, save_tiny, save_tiny_dev

SIZES = (96, 64)
"""The pipelines take references of at least 64 pixels."""


class NegativeKleinPipeline(Flux2KleinPipeline):
    """Flux2KleinPipeline takes a negative prompt as embeddings only."""

    def __call__(self, *, negative_prompt: list[str], max_sequence_length: int, **more: Any) -> Any:
        """As the parent's, with a text."""
        embeds, _ = self.encode_prompt(negative_prompt, max_sequence_length=max_sequence_length)
        return super().__call__(negative_prompt_embeds=embeds, max_sequence_length=max_sequence_length, **more)


def as_list(pictures: Sequence[Image.Image]) -> dict[str, Any]:
    """References, also a single one."""
    return {"image": list(pictures)}


def packed_again(pipeline: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """klein's latents are ready for the VAE: normalize them."""
    return normalized(pipeline, latents)


def unpacked(pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """dev's latents are tokens [B, L, C]."""
    stride = 2 * pipeline.vae_scale_factor
    return tokens.mT.unflatten(-1, (height // stride, width // stride))


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """As both pipelines encode references."""
    return normalized(pipeline, pipeline.vae.encode(pixels).latent_dist.mode())


def normalized(pipeline: Any, latents: Tensor) -> Tensor:
    """In patches of 2x2, with the statistics of the VAE's batch norm."""
    norm = pipeline.vae.bn
    mean, variance = norm.running_mean.view(1, -1, 1, 1), norm.running_var.view(1, -1, 1, 1)
    return (pipeline._patchify_latents(latents) - mean) / (variance + norm.eps).sqrt()


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Tensor]:
    """Three layers of the language model."""
    return {"text": pipeline.encode_prompt(texts, max_sequence_length=TEXT_LENGTH)[0]}


def flux2_case(arch: str, save: Callable[[Path], Path], images: int = 0, **more: Any) -> Case:
    """A variant of FLUX.2."""
    return Case(
        arch,
        save,
        encode_image=encode_image,
        encode_prompt=encode_prompt,
        call={"max_sequence_length": TEXT_LENGTH},
        images=images,
        call_images=as_list,
        sizes=SIZES if images else None,
        **more,
    )


def klein_case(arch: str, images: int = 0) -> Case:
    """A variant of klein."""
    return flux2_case(
        arch,
        save_tiny,
        images,
        latents=packed_again,
        guidance=4.0,
        load_pipeline=NegativeKleinPipeline.from_pretrained,
    )


CASES: dict[str, Case] = {
    "flux2-dev": flux2_case("flux2", save_tiny_dev, latents=unpacked),
    "flux2-dev-reference": flux2_case("flux2", save_tiny_dev, images=1, latents=unpacked),
    "flux2-klein-4b": klein_case("flux2_klein_4b"),
    "flux2-klein-4b-references": klein_case("flux2_klein_4b", images=2),
    "flux2-klein-9b": klein_case("flux2_klein_9b"),
}
