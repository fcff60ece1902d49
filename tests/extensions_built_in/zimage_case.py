"""Z-Image for the contract test: what ZImagePipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from family_pipelines import kl_latents
from family_subject import Case

from extensions_built_in.zimage.tiny import save_tiny


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Any]:
    """Qwen's hidden states without padding."""
    return {"text": pipeline.encode_prompt(texts, do_classifier_free_guidance=False)[0]}


CASES: dict[str, Case] = {
    "zimage": Case("zimage", save_tiny, encode_image=kl_latents, encode_prompt=encode_prompt, guidance=4.0)
}
