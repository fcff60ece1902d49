"""HunyuanVideo for the contract test: what HunyuanVideoPipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from family_pipelines import kl_latents, trimmed
from family_subject import Case

from extensions_built_in.hunyuan_video.tiny import save_tiny


def hunyuan_case(guidance_embeds: bool = True) -> Case:
    """HunyuanVideo, or a variant without the guidance input."""
    return Case(
        "hunyuan_video",
        partial(save_tiny, guidance_embeds=guidance_embeds),
        encode_image=kl_latents,
        encode_prompt=encode_prompt,
        guidance=6.0,
        takes_guidance=guidance_embeds,
        frames=5,
        sizes=(32, 16),
    )


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Any]:
    """Llama's hidden states where the mask is set, and CLIP's pooled vector."""
    hidden, pooled, mask = pipeline.encode_prompt(texts)
    return {"text": trimmed(hidden, mask), "pooled": pooled}


CASES: dict[str, Case] = {"hunyuan-video": hunyuan_case()}
