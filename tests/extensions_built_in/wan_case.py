"""Wan and SkyReels V2 for the contract test: what their pipelines do around their networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import SkyReelsV2ImageToVideoPipeline, SkyReelsV2Pipeline, WanImageToVideoPipeline
from diffusers.pipelines.skyreels_v2 import pipeline_skyreels_v2, pipeline_skyreels_v2_i2v
from diffusers.pipelines.wan import pipeline_wan, pipeline_wan_i2v
from family_subject import Case
from torch import Tensor

from extensions_built_in.wan.tiny import save_tiny

FRAMES = 5


def wan_case(arch: str, pipeline: Any = None, images: int = 0, **save: Any) -> Case:
    """A variant of Wan."""
    return Case(
        arch,
        partial(save_tiny, **save),
        encode_image=encode_image,
        encode_prompt=encode_prompt,
        guidance=4.0,
        images=images,
        frames=FRAMES,
        sizes=(48, 32),
        load_pipeline=partial(load_cleanly, pipeline) if pipeline else None,
        load_lora=load_lora,
        # UniPC rounds its timesteps down to whole numbers: the network is asked at .923 where sigma is .9232
        tolerances={"oracle": 8e-3},
    )


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """As in WanImageToVideoPipeline, with a whole video for the picture."""
    vae = pipeline.vae
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return (vae.encode(pixels).latent_dist.mode() - mean) / std


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, list[Tensor]]:
    """UMT5's hidden states, without the zeros that the pipeline puts behind them."""
    padded = pipeline.encode_prompt(texts, do_classifier_free_guidance=False, max_sequence_length=512)[0]
    return {"text": [text[text.any(dim=1)] for text in padded]}


def load_cleanly(cls: Any, folder: Path) -> Any:
    """A pipeline whose text cleaning, in diffusers 0.42, calls ftfy even where that is not installed."""
    for module in (pipeline_wan_i2v, pipeline_skyreels_v2, pipeline_skyreels_v2_i2v):
        module.basic_clean = pipeline_wan.basic_clean
    return cls.from_pretrained(folder)


def load_lora(pipeline: Any, files: Sequence[Path]) -> None:
    """The high-noise file belongs to `transformer`, the low-noise file to `transformer_2`."""
    for number, file in enumerate(files):
        pipeline.load_lora_weights(file, load_into_transformer_2=number == 1)


CASES: dict[str, Case] = {
    "wan21": wan_case("wan21"),
    "wan21-i2v": wan_case("wan21_i2v", WanImageToVideoPipeline, 1, image_to_video=True, image_tokens=True),
    "wan22-14b": wan_case("wan22_14b", boundary=0.875),
    "wan22-14b-i2v": wan_case("wan22_14b_i2v", WanImageToVideoPipeline, 1, image_to_video=True, boundary=0.9),
    "wan22-5b-t2v": wan_case("wan22_5b", small=True),
    "wan22-5b-i2v": wan_case("wan22_5b", WanImageToVideoPipeline, 1, small=True),
    "skyreels-v2": wan_case("skyreels_v2", SkyReelsV2Pipeline, skyreels=True),
    "skyreels-v2-i2v": wan_case(
        "skyreels_v2_i2v", SkyReelsV2ImageToVideoPipeline, 1, image_to_video=True, image_tokens=True, skyreels=True
    ),
}
