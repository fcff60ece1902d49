"""Nucleus-Image as a family: https://huggingface.co/NucleusAI/Nucleus-Image, NucleusMoEImagePipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import linear_mu
from toolkit.models.latents import decode_standardized, encode_standardized, norm_like, pack, unpack
from toolkit.models.parts import Parts
from toolkit.models.text import chat_text, hidden_layers, masked_tokens, trim

BLOCKS = r"transformer_blocks\..*"
SYSTEM = (
    "You are an image generation assistant. Follow the user's prompt literally. Pay careful attention to spatial "
    "layout: objects described as on the left must appear on the left, on the right on the right. Match exact object "
    "counts and assign colors to the correct objects."
)
TEXT_LENGTH = 1024
LAYER = -8
"""The layer of Qwen3-VL that the network sees."""


class NucleusImageFamily:
    """The verbs of Nucleus-Image, a mixture of experts. Its network answers x - e, in 2x2 tokens."""

    pipeline: ClassVar[str] = "NucleusMoEImagePipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("processor", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        vae = parts.source.config("vae")
        self.patch = parts.source.config("transformer")["patch_size"]
        stride = 2 ** len(vae["temperal_downsample"])
        self.facts = Facts(
            channels=vae["z_dim"],
            stride=stride,
            multiple=stride * self.patch,
            base_model="nucleus_image",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", blocks=BLOCKS, prefix="transformer."),),
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> latents [B, C, h, w]."""
        return encode_standardized(self.parts["vae"], pixels.unsqueeze(2)).squeeze(2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""
        return decode_standardized(self.parts["vae"], latents.unsqueeze(2)).squeeze(2)

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D]: a late layer of Qwen3-VL, asked in its chat template, without padding."""
        encoder, tokenizer = self.parts["text_encoder"], self.parts["processor"]
        prompts = [chat_text(tokenizer, text, system=SYSTEM) for text in texts]
        ids, mask = masked_tokens(tokenizer, prompts, TEXT_LENGTH, encoder.device, padding="longest")
        (hidden,) = hidden_layers(encoder.model, ids, mask, (LAYER,))
        return [{"text": text} for text in trim(hidden, mask)]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Nucleus-Image has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        h, w = noisy.shape[-2:]
        answer = self.denoiser(
            hidden_states=pack(noisy, self.patch),
            timestep=t.to(noisy.device, torch.float32, non_blocking=True),
            encoder_hidden_states=cond["text"],
            encoder_hidden_states_mask=cond.mask("text") if "text" in cond.lengths else None,
            img_shapes=[(1, h // self.patch, w // self.patch)] * len(noisy),
            return_dict=False,
        )[0]
        return -unpack(answer, h, w, self.patch)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps, shifted by the number of tokens."""
        mu = linear_mu(shape[-2] * shape[-1] // self.patch**2, self.facts.scheduler)
        return {"sigmas": np.linspace(1.0, 1 / steps, steps), "mu": mu}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Classifier-free guidance, each token rescaled to the norm that it has in `yes`."""
        h, w = yes.shape[-2:]
        guided = norm_like(pack(yes, self.patch), pack(no + scale * (yes - no), self.patch), dim=-1)
        return unpack(guided, h, w, self.patch)
