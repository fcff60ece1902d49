"""Chroma for the contract test: what ChromaPipeline does around its network, with the mask as it is meant."""

from __future__ import annotations

from typing import Any

from diffusers import ChromaPipeline
from family_pipelines import kl_latents, trimmed, unpacked
from family_subject import Case
from torch import Tensor

from extensions_built_in.chroma.tiny import save_tiny
from toolkit.assets.tiny_text import TEXT_LENGTH


class BoolMaskPipeline(ChromaPipeline):
    """ChromaPipeline adds its mask of 0 and 1 to the attention scores; as bools, it masks."""

    def _prepare_attention_mask(self, *inputs: Any, **more: Any) -> Tensor | None:
        mask = super()._prepare_attention_mask(*inputs, **more)
        return None if mask is None else mask.bool()


def encode_prompt(pipeline: Any, texts: list[str]) -> dict[str, list[Tensor]]:
    """T5's hidden states where the mask lets the network see them."""
    hidden, mask = pipeline._get_t5_prompt_embeds(texts, max_sequence_length=TEXT_LENGTH)
    return {"text": trimmed(hidden, mask)}


CASES: dict[str, Case] = {
    "chroma": Case(
        "chroma",
        save_tiny,
        latents=unpacked,
        encode_image=kl_latents,
        encode_prompt=encode_prompt,
        call={"max_sequence_length": TEXT_LENGTH},
        guidance=3.0,
        load_pipeline=BoolMaskPipeline.from_pretrained,
        # the network rounds t to bf16 before it multiplies it by 1000, and nothing but the time modulates it
        tolerances={"bf16": 0.6},
    ),
}
