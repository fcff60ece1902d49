"""Sana for the contract test: what SanaPipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from family_pipelines import trimmed
from family_subject import Case
from torch import Tensor

from extensions_built_in.sana.family import INSTRUCTION
from extensions_built_in.sana.tiny import save_tiny


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """The latents, scaled."""
    return pipeline.vae.encode(pixels).latent * pipeline.vae.config.scaling_factor


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Any]:
    """Gemma's hidden states without padding."""
    text, mask, *_ = pipeline.encode_prompt(
        texts, do_classifier_free_guidance=False, complex_human_instruction=INSTRUCTION.split("\n")
    )
    return {"text": trimmed(text, mask)}


CASES: dict[str, Case] = {
    "sana": Case(
        "sana",
        save_tiny,
        encode_image=encode_image,
        encode_prompt=encode_prompt,
        call={"use_resolution_binning": False},
        guidance=4.5,
        sizes=(64, 32),
        # DPM-Solver rounds the times that it hands to the network to whole steps of 1000
        tolerances={"oracle": 5e-3},
    )
}
