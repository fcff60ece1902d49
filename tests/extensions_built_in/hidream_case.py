"""HiDream-I1 for the contract test: what HiDreamImagePipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import HiDreamImagePipeline
from family_pipelines import kl_latents
from family_subject import Case

from extensions_built_in.hidream.tiny import save_tiny
from toolkit.assets.tiny_text import TEXT_LENGTH


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Any]:
    """T5's hidden states, Llama's layers and the CLIPs' vectors."""
    t5, _, llama, _, pooled, _ = pipeline.encode_prompt(
        texts, do_classifier_free_guidance=False, max_sequence_length=TEXT_LENGTH
    )
    return {"text": t5, "llama": llama.transpose(0, 1), "pooled": pooled}


def pipeline_of(folder: Path) -> Any:
    """The pipeline, which keeps to an area of 32 x 32 pixels instead of 1024 x 1024."""
    pipeline = HiDreamImagePipeline.from_pretrained(folder)
    pipeline.default_sample_size = 16
    return pipeline


CASES: dict[str, Case] = {
    "hidream": Case(
        "hidream",
        save_tiny,
        encode_image=kl_latents,
        encode_prompt=encode_prompt,
        call={"max_sequence_length": TEXT_LENGTH},
        guidance=5.0,
        sizes=(64, 16),
        load_pipeline=pipeline_of,
    )
}
