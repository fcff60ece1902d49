"""Lumina-Image 2.0 as a family: Qin et al. (2025), https://arxiv.org/abs/2503.21758, Lumina2Pipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import transformer_facts
from toolkit.models.flow import linear_mu
from toolkit.models.latents import decode_scaled, encode_scaled, norm_like
from toolkit.models.parts import Parts
from toolkit.models.text import hidden_layers, masked_tokens, trim

BLOCKS = r"(noise_refiner|context_refiner|layers)\..*"
TEXT_LENGTH = 256
INSTRUCTION = (
    "You are an assistant designed to generate superior images with the superior degree of image-text alignment "
    "based on textual prompts or user prompts. <Prompt Start> "
)
"""Before every prompt but the negative one, as in training of the checkpoint."""


class Lumina2Family:
    """The verbs of Lumina-Image 2.0. Its network counts time from noise (0) to data (1) and answers data - noise."""

    pipeline: ClassVar[str] = "Lumina2Pipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.facts = transformer_facts(parts.source, "lumina2", BLOCKS, text_length=TEXT_LENGTH)

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> latents [B, C, h, w]."""
        return encode_scaled(self.parts["vae"], pixels)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""
        return decode_scaled(self.parts["vae"], latents)

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D]: Gemma's last layer but one, without padding."""
        encoder, tokenizer = self.parts["text_encoder"], self.parts["tokenizer"]
        tokenizer.padding_side = "right"
        prompts = texts if negative else [INSTRUCTION + text for text in texts]
        ids, mask = masked_tokens(tokenizer, prompts, TEXT_LENGTH, encoder.device)
        (hidden,) = hidden_layers(encoder, ids, mask, (-2,))
        return [{"text": text} for text in trim(hidden, mask)]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Lumina-Image has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        return -self.denoiser(
            hidden_states=noisy,
            timestep=(1 - t).to(noisy.device, torch.float32, non_blocking=True),
            encoder_hidden_states=cond["text"],
            encoder_attention_mask=cond.mask("text"),
            return_dict=False,
        )[0]

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps; a shift by size, if any, goes by the number of channels, as in the pipeline."""
        arguments: dict[str, Any] = {"sigmas": np.linspace(1.0, 1 / steps, steps)}
        if self.facts.scheduler.get("use_dynamic_shifting"):
            arguments["mu"] = linear_mu(shape[-3], self.facts.scheduler)
        return arguments

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Classifier-free guidance, rescaled to the norm of `yes` along each row of cells."""
        return norm_like(yes, no + scale * (yes - no), dim=-1)
