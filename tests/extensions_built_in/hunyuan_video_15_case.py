"""HunyuanVideo 1.5 for the contract test: what HunyuanVideo15Pipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import HunyuanVideo15Pipeline
from family_pipelines import kl_latents, load_into_transformer, trimmed
from family_subject import Case
from torch import Tensor

from extensions_built_in.hunyuan_video_15.tiny import save_tiny


class WithScale(HunyuanVideo15Pipeline):
    """The pipeline, which keeps its guidance scale in a part, called as others are."""

    def __call__(self, *, guidance_scale: float, **arguments: Any) -> Any:
        self.guider.guidance_scale = guidance_scale
        return super().__call__(**arguments)


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, list[Tensor]]:
    """Qwen's and ByT5's hidden states where their masks are set."""
    text, mask, glyphs, glyph_mask = pipeline.encode_prompt(texts, batch_size=len(texts))
    return {"text": trimmed(text, mask), "glyphs": trimmed(glyphs, glyph_mask)}


def load_pipeline(folder: Path) -> Any:
    """The pipeline, with less of the padding that its network masks, and a VAE that takes one video at a time."""
    pipeline = WithScale.from_pretrained(folder)
    pipeline.tokenizer_max_length, pipeline.tokenizer_2_max_length = 60, 40
    pipeline.vision_num_semantic_tokens = 1
    pipeline.vae.enable_slicing()
    return pipeline


CASES: dict[str, Case] = {
    "hunyuan-video-1.5": Case(
        "hunyuan_video_15",
        save_tiny,
        encode_image=kl_latents,
        encode_prompt=encode_prompt,
        guidance=6.0,
        frames=5,
        # what is quoted is read letter by letter too
        texts=('a red sign that says "stop here"', 'a "cat"'),
        sizes=(16, 8),
        load_pipeline=load_pipeline,
        load_lora=load_into_transformer,
    )
}
