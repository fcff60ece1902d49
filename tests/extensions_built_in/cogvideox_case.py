"""CogVideoX for the contract test: what CogVideoXPipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from family_pipelines import kl_latents
from family_subject import Case
from torch import Tensor

from extensions_built_in.cogvideox.tiny import CHANNELS, save_tiny
from toolkit.assets.tiny_text import TEXT_LENGTH

FRAMES, HEIGHT, WIDTH = 9, 32, 24
SHAPE = (CHANNELS, 3, HEIGHT // 4, WIDTH // 4)


def cogvideox_case(**save: Any) -> Case:
    """CogVideoX with rotary positions (5B) or fixed ones (2B)."""
    return Case(
        "cogvideox",
        partial(save_tiny, **save),
        latents=channels_first,
        encode_image=kl_latents,
        encode_prompt=encode_prompt,
        call={"max_sequence_length": TEXT_LENGTH, "latents": frames_first_noise()},
        guidance=6.0,
        frames=FRAMES,
        sizes=(HEIGHT, WIDTH),
        # the scheduler steps to level t - 1000 // steps, one index away from the next time that it names
        tolerances={"oracle": 6e-2},
    )


def frames_first_noise() -> Tensor:
    """Our noise of seeds 0 and 1 as the pipeline orders it; its own draws frames before channels."""
    seeds = (torch.Generator().manual_seed(seed) for seed in range(2))
    return torch.cat([torch.randn(1, *SHAPE, generator=seed) for seed in seeds]).transpose(1, 2)


def channels_first(pipeline: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """[B, f, C, h, w] -> [B, C, f, h, w]."""
    return latents.transpose(1, 2)


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Tensor]:
    """T5's hidden states."""
    text, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False, max_sequence_length=TEXT_LENGTH)
    return {"text": text}


CASES: dict[str, Case] = {
    "cogvideox-2b": cogvideox_case(rotary=False, snr_shift=3.0),
    "cogvideox-5b": cogvideox_case(),
}
