"""Ovis-Image for the contract test: what OvisImagePipeline does around its network."""

from __future__ import annotations

from typing import Any

from family_pipelines import kl_latents, load_into_transformer, unpacked
from family_subject import Case
from torch import Tensor

from extensions_built_in.ovis_image.family import TEMPLATE_TOKENS
from extensions_built_in.ovis_image.tiny import TEXT_LENGTH, save_tiny


def encode_prompt(pipeline: Any, texts: list[str]) -> dict[str, list[Tensor]]:
    """The hidden states, without the zeros behind them."""
    hidden = pipeline._get_ovis_prompt_embeds(texts, max_sequence_length=TEXT_LENGTH)
    lengths = [len(pipeline.tokenizer(message).input_ids) for message in pipeline._get_messages(texts)]
    return {"text": [row[: length - TEMPLATE_TOKENS] for row, length in zip(hidden, lengths, strict=True)]}


CASES: dict[str, Case] = {
    "ovis-image": Case(
        "ovis_image",
        save_tiny,
        latents=unpacked,
        encode_image=kl_latents,
        encode_prompt=encode_prompt,
        call={"max_sequence_length": TEXT_LENGTH},
        guidance=5.0,
        load_lora=load_into_transformer,
    ),
}
