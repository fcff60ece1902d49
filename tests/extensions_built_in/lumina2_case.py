"""Lumina-Image 2.0 for the contract test: what Lumina2Pipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from family_pipelines import kl_latents, trimmed
from family_subject import Case

from extensions_built_in.lumina2.tiny import save_tiny


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Any]:
    """Gemma's hidden states without padding."""
    text, mask, *_ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False)
    return {"text": trimmed(text, mask)}


def pipeline_of(folder: Any) -> Any:
    """The pipeline with the stride of its tiny VAE; its own is a constant."""
    from diffusers import Lumina2Pipeline
    from diffusers.image_processor import VaeImageProcessor

    pipeline = Lumina2Pipeline.from_pretrained(folder)
    pipeline.vae_scale_factor = 2
    pipeline.image_processor = VaeImageProcessor(vae_scale_factor=4)
    return pipeline


CASES: dict[str, Case] = {
    "lumina2": Case(
        "lumina2",
        save_tiny,
        encode_image=kl_latents,
        encode_prompt=encode_prompt,
        guidance=4.0,
        load_pipeline=pipeline_of,
    )
}
