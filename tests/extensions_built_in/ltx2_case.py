"""LTX-2 for the contract test: what LTX2Pipeline and LTX2ImageToVideoPipeline do around the video stream."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from diffusers import LTX2ImageToVideoPipeline, LTX2Pipeline
from family_subject import Case
from torch import Tensor

from extensions_built_in.ltx2.tiny import TEXT_LENGTH, save_tiny

GUIDANCE_OFF = {
    "guidance_rescale": 0.0,
    "stg_scale": 0.0,
    "modality_scale": 1.0,
    "audio_guidance_rescale": 0.0,
    "audio_stg_scale": 0.0,
    "audio_modality_scale": 1.0,
}
"""What the pipeline adds to plain guidance."""


def ltx2_case(arch: str = "ltx2", images: int = 0, **save: Any) -> Case:
    """A variant of LTX-2."""
    return Case(
        arch,
        partial(save_tiny, **save),
        latents=normalized,
        encode_image=normalized_mode,
        encode_prompt=encode_prompt,
        call={
            "frame_rate": 16.0,
            "max_sequence_length": TEXT_LENGTH,
            **GUIDANCE_OFF,
            # pictures are not compressed first, as they would be for a sample of the pipeline
            **({"image_crf": 0} if images else {}),
        },
        numbers={"fps": 16},
        guidance=3.0,
        images=images,
        frames=9,
        sizes=(64, 96),
        load_pipeline=partial(load_isolated, LTX2ImageToVideoPipeline if images else LTX2Pipeline),
        skips={"full": "The loss reaches the video stream only, a third of the weights."},
    )


def normalized(pipeline: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """The pipeline's latents are those of the VAE."""
    vae = pipeline.vae
    return pipeline._normalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)


def normalized_mode(pipeline: Any, pixels: Tensor) -> Tensor:
    """As in LTX2ImageToVideoPipeline, with a whole video for the picture."""
    return normalized(pipeline, pipeline.vae.encode(pixels).latent_dist.mode(), 0, 0)


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Tensor]:
    """What the connectors make for the video stream."""
    hidden, mask, _, _ = pipeline.encode_prompt(
        texts, do_classifier_free_guidance=False, max_sequence_length=TEXT_LENGTH
    )
    return {"text": pipeline.connectors(hidden, mask, padding_side="left")[0]}


def load_isolated(cls: Any, folder: Path) -> Any:
    """The pipeline with streams that do not look at each other."""
    pipeline = cls.from_pretrained(folder)
    pipeline.transformer.register_forward_pre_hook(isolate, with_kwargs=True)
    return pipeline


def isolate(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The transformer's arguments, with the switch that the pipeline uses for one of its guidances."""
    return args, {**kwargs, "isolate_modalities": True}


CASES: dict[str, Case] = {
    "ltx2": ltx2_case(),
    "ltx2-i2v": ltx2_case(images=1),
    "ltx2.3": ltx2_case("ltx2.3", prompt_modulation=True),
}
