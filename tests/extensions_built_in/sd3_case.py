"""Stable Diffusion 3 for the contract test: what StableDiffusion3Pipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from diffusers import StableDiffusion3Pipeline
from family_pipelines import kl_latents
from family_subject import Case
from torch import Tensor

from extensions_built_in.sd3.tiny import save_tiny
from toolkit.assets.tiny_text import TEXT_LENGTH


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Tensor]:
    """Hidden states of all encoders, and both pooled vectors."""
    length = TEXT_LENGTH if pipeline.text_encoder_3 is not None else 256
    text, _, pooled, _ = pipeline.encode_prompt(
        texts, None, None, do_classifier_free_guidance=False, max_sequence_length=length
    )
    return {"text": text, "pooled": pooled}


def load_without_t5(folder: Path) -> StableDiffusion3Pipeline:
    """Parts that a checkpoint lacks are named when it is loaded."""
    return StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)


sd3 = partial(Case, "sd3", encode_image=kl_latents, encode_prompt=encode_prompt, guidance=5.0)

CASES: dict[str, Case] = {
    "sd3": sd3(save=save_tiny, call={"max_sequence_length": TEXT_LENGTH}),
    "sd35-medium-without-t5": sd3(save=partial(save_tiny, has_t5=False, is_35=True), load_pipeline=load_without_t5),
}
