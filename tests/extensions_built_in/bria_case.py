"""BRIA for the contract test: what BriaPipeline does around its network."""

from __future__ import annotations

from functools import partial
from typing import Any

from family_pipelines import kl_latents, load_into_transformer, unpacked
from family_subject import Case
from torch import Tensor

from extensions_built_in.bria.tiny import save_tiny
from toolkit.assets.tiny_text import TEXT_LENGTH


def encode_prompt(pipeline: Any, texts: list[str]) -> dict[str, list[Tensor]]:
    """The hidden states, without the zeros behind them."""
    hidden = pipeline._get_t5_prompt_embeds(texts, max_sequence_length=TEXT_LENGTH)
    lengths = [len(pipeline.tokenizer(text).input_ids) for text in texts]
    return {"text": [row[:length] for row, length in zip(hidden, lengths, strict=True)]}


def bria_case(dynamic: bool) -> Case:
    """With one of the two schedules."""
    return Case(
        "bria",
        partial(save_tiny, dynamic=dynamic),
        latents=unpacked,
        encode_image=kl_latents,
        encode_prompt=encode_prompt,
        call={"max_sequence_length": TEXT_LENGTH},
        guidance=5.0,
        load_lora=load_into_transformer,
    )


CASES: dict[str, Case] = {"bria": bria_case(dynamic=False), "bria-dynamic": bria_case(dynamic=True)}
