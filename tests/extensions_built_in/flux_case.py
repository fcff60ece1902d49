"""FLUX.1 and its variants for the contract test: what the Flux pipelines do around their network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxControlPipeline
from family_pipelines import kl_latents, unpacked
from family_subject import Case
from PIL import Image
from torch import Tensor

from extensions_built_in.flux.tiny import save_tiny
from toolkit.assets.tiny_text import TEXT_LENGTH

SIZES = (32, 24)
CALL = {"max_sequence_length": TEXT_LENGTH}


def flux_case(save: Callable[[Path], Path], arch: str = "flux", **more: Any) -> Case:
    """A variant of FLUX.1."""
    more.setdefault("call", CALL)
    return Case(arch, save, latents=unpacked, encode_image=kl_latents, encode_prompt=encode_prompt, **more)


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Tensor]:
    """T5's hidden states and CLIP's pooled vector."""
    text, pooled, _ = pipeline.encode_prompt(texts, texts, max_sequence_length=TEXT_LENGTH)
    return {"text": text, "pooled": pooled}


def as_control(pictures: Sequence[Image.Image]) -> dict[str, Any]:
    """The argument of pipelines with control channels."""
    return {"control_image": pictures[0]}


def with_modes(pipeline: Any) -> Any:
    """The pipeline with a VAE whose samples are the mode: we encode pictures once, for all steps and epochs."""
    encode = pipeline.vae.encode

    def encode_mode(pixels: Tensor) -> Any:
        encoded = encode(pixels)
        encoded.latent_dist.sample = lambda generator=None: encoded.latent_dist.mode()
        return encoded

    pipeline.vae.encode = encode_mode
    return pipeline


class Flex2Pipeline(FluxControlPipeline):
    """What the pipeline in Flex.2's repository adds to the channels: kept latents, mask, control latents.

    A picture with an alpha channel is one to inpaint, one without a control.
    """

    def prepare_image(self, image: Any, width: int, height: int, batch_size: int, *rest: Any, **more: Any) -> Tensor:
        """Tokens [B, L, D], which the parent uses as they are."""
        pixels = self.image_processor.preprocess(image.convert("RGB"), height=height, width=width)
        latents = kl_latents(self, pixels)
        kept, control, mask = torch.zeros_like(latents), latents, torch.ones_like(latents[:, :1])
        if image.mode == "RGBA":
            alpha = torch.from_numpy(np.array(image.getchannel("A"), dtype=np.float32))[None, None] / 255
            mask = 1 - torch.nn.functional.interpolate(alpha, mask.shape[-2:], mode="bilinear")
            kept, control = latents * (1 - mask), torch.zeros_like(latents)
        channels = torch.cat([kept, mask, control], dim=1).repeat(batch_size, 1, 1, 1)
        return self._pack_latents(channels, *channels.shape)

    def prepare_latents(self, batch_size: int, channels: int, *rest: Any) -> Any:
        """With the channels of the VAE; the parent takes half of the network's inputs."""
        return super().prepare_latents(batch_size, self.vae.config.latent_channels, *rest)


CASES: dict[str, Case] = {
    "flux-dev": flux_case(save_tiny),
    "flux-schnell": flux_case(partial(save_tiny, guidance_embeds=False), takes_guidance=False),
    "flex1": flux_case(partial(save_tiny, num_single_layers=3)),
    "flex2": flux_case(
        partial(save_tiny, pipeline="FluxControlPipeline", control_channels=9),
        "flex2",
        images=1,
        call_images=as_control,
        load_pipeline=Flex2Pipeline.from_pretrained,
        sizes=SIZES,
    ),
    "flux-control": flux_case(
        partial(save_tiny, pipeline="FluxControlPipeline", control_channels=4),
        "flux_control",
        images=1,
        call_images=as_control,
        load_pipeline=lambda folder: with_modes(FluxControlPipeline.from_pretrained(folder)),
        sizes=SIZES,
    ),
    "flux-kontext": flux_case(
        partial(save_tiny, pipeline="FluxKontextPipeline"),
        "flux_kontext",
        images=1,
        call={**CALL, "max_area": SIZES[0] * SIZES[1], "_auto_resize": False},
        sizes=SIZES,
    ),
}
