"""Stable Diffusion 1, 2 and XL for the contract test: what their pipelines do around the U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from family_pipelines import kl_latents
from family_subject import Case
from torch import Tensor

from extensions_built_in.stable_diffusion.tiny import EULER, ZERO_SNR, save_tiny, save_tiny_xl


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Tensor]:
    """CLIP's last hidden states."""
    text, _ = pipeline.encode_prompt(texts, "cpu", 1, False)
    return {"text": text}


def encode_prompt_xl(pipeline: Any, texts: list[str]) -> Mapping[str, Tensor]:
    """Hidden states of both, and the pooled vector of the second."""
    text, _, pooled, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False)
    return {"text": text, "pooled": pooled}


# the pipelines take multiples of 8 pixels
plain = partial(Case, encode_image=kl_latents, encode_prompt=encode_prompt, guidance=6.0, sizes=(32, 24))
xl = partial(Case, encode_image=kl_latents, encode_prompt=encode_prompt_xl, guidance=6.0, sizes=(32, 24))

CASES: dict[str, Case] = {
    "sdxl": xl("sdxl", save_tiny_xl),
    # between two steps of the diffusion the scheduler interpolates noise levels, and our path their squares
    "ssd-linspace": xl(
        "ssd",
        partial(save_tiny_xl, scheduler={**EULER, "timestep_spacing": "linspace"}),
        tolerances={"oracle": 5e-6},
    ),
    "sd15": plain("sd15", save_tiny),
    "sd2-v-zero-snr": plain("sd2", partial(save_tiny, scheduler=ZERO_SNR)),
    "vega": xl("vega", save_tiny_xl),
}
