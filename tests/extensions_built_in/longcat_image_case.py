"""LongCat-Image for the contract test: what LongCatImagePipeline does around its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import LongCatImagePipeline
from family_pipelines import kl_latents, load_into_transformer, unpacked
from family_subject import Case
from torch import Tensor

from extensions_built_in.longcat_image.tiny import TEXT_LENGTH, save_tiny


def load_pipeline(folder: Path) -> Any:
    """Without the processor for pictures, which the language model would use to rewrite prompts."""
    pipeline = LongCatImagePipeline.from_pretrained(folder, text_processor=None)
    pipeline.tokenizer_max_length = TEXT_LENGTH
    return pipeline


def encode_prompt(pipeline: Any, texts: list[str]) -> dict[str, Tensor]:
    """The last layer, pads included."""
    return {"text": pipeline.encode_prompt(texts)[0]}


CASES: dict[str, Case] = {
    "longcat-image": Case(
        "longcat_image",
        save_tiny,
        latents=unpacked,
        encode_image=kl_latents,
        encode_prompt=encode_prompt,
        call={"enable_prompt_rewrite": False},
        guidance=4.5,
        load_pipeline=load_pipeline,
        load_lora=load_into_transformer,
    ),
}
