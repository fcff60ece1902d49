"""AuraFlow for the contract test: what AuraFlowPipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from family_pipelines import kl_latents
from family_subject import Case
from torch import Tensor

from extensions_built_in.auraflow.tiny import save_tiny
from toolkit.assets.tiny_text import TEXT_LENGTH


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, list[Tensor]]:
    """The encoder's hidden states without padding; the mask has a number for each of their elements."""
    text, mask, _, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False, max_sequence_length=TEXT_LENGTH)
    return {"text": [row[keep.view(row.shape)[:, 0].bool()] for row, keep in zip(text, mask, strict=True)]}


CASES: dict[str, Case] = {
    "auraflow": Case(
        "auraflow",
        save_tiny,
        encode_image=kl_latents,
        encode_prompt=encode_prompt,
        call={"max_sequence_length": TEXT_LENGTH},
        sizes=(32, 24),
    )
}
