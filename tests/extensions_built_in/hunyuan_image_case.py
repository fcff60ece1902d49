"""HunyuanImage for the contract test: what HunyuanImagePipeline does around its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import AdaptiveProjectedMixGuidance, HunyuanImagePipeline
from family_pipelines import kl_latents, load_into_transformer, trimmed
from family_subject import Case
from torch import Tensor

from extensions_built_in.hunyuan_image.tiny import TEXT_LENGTH, save_tiny


class ScaledPipeline(HunyuanImagePipeline):
    """HunyuanImagePipeline with a guidance scale in the call; its guider is a plain one for the first 5 steps."""

    def __call__(self, *, guidance_scale: float, **more: Any) -> Any:
        """As the parent's."""
        self.guider = AdaptiveProjectedMixGuidance(guidance_scale=guidance_scale)
        return super().__call__(**more)


def load_pipeline(folder: Path) -> Any:
    """With a shorter text."""
    pipeline = ScaledPipeline.from_pretrained(folder)
    pipeline.tokenizer_max_length = TEXT_LENGTH
    return pipeline


def encode_prompt(pipeline: Any, texts: list[str]) -> dict[str, list[Tensor]]:
    """Both encoders' states where the masks let the network see them."""
    text, seen, glyphs, seen_glyphs = pipeline.encode_prompt(texts, batch_size=len(texts))
    return {
        "text": trimmed(text, seen),
        "glyphs": [row[mask.bool()] if mask.any() else row[:1] for row, mask in zip(glyphs, seen_glyphs, strict=True)],
    }


CASES: dict[str, Case] = {
    "hunyuan-image": Case(
        "hunyuan_image",
        save_tiny,
        encode_image=kl_latents,
        encode_prompt=encode_prompt,
        load_pipeline=load_pipeline,
        load_lora=load_into_transformer,
        # what is quoted is read letter by letter too
        texts=('a red sign that says "stop here"', 'a "cat"'),
    ),
}
