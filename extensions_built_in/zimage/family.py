"""Z-Image as a family: Tongyi-MAI (2025), https://arxiv.org/abs/2511.22699, ZImagePipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers.pipelines.z_image.pipeline_z_image import get_default_z_image_sigmas
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import transformer_facts
from toolkit.models.flow import linear_mu
from toolkit.models.latents import decode_scaled, encode_scaled
from toolkit.models.parts import Parts
from toolkit.models.text import chat_text, hidden_layers, masked_tokens, trim

BLOCKS = r"(noise_refiner|context_refiner|layers)\..*"
TEXT_LENGTH = 512


class ZImageFamily:
    """The verbs of Z-Image. Its network counts time from noise (0) to data (1) and answers data - noise."""

    pipeline: ClassVar[str] = "ZImagePipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.facts = transformer_facts(parts.source, "zimage", BLOCKS, text_length=TEXT_LENGTH)

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
        """Rows of `text` [L, D]: the last layer but one of Qwen3, asked in its chat template, without padding."""
        encoder, tokenizer = self.parts["text_encoder"], self.parts["tokenizer"]
        prompts = [chat_text(tokenizer, text, thinking=True) for text in texts]
        ids, mask = masked_tokens(tokenizer, prompts, TEXT_LENGTH, encoder.device)
        (hidden,) = hidden_layers(encoder, ids, mask, (-2,))
        return [{"text": text} for text in trim(hidden, mask)]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Z-Image has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        lengths = cond.lengths.get("text", (cond["text"].shape[1],) * len(noisy))
        answers = self.denoiser(
            list(noisy.unsqueeze(2).unbind()),
            (1 - t).to(noisy.device, torch.float32, non_blocking=True),
            [text[:length] for text, length in zip(cond["text"], lengths, strict=True)],
            return_dict=False,
        )[0]
        return -torch.stack(list(answers)).squeeze(2)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """The pipeline's noise levels, shifted by the number of 2x2 tokens where the scheduler does that."""
        arguments: dict[str, Any] = {"sigmas": get_default_z_image_sigmas(steps)}
        if self.facts.scheduler.get("use_dynamic_shifting"):
            arguments["mu"] = linear_mu(shape[-2] * shape[-1] // 4, self.facts.scheduler)
        return arguments

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Away from `no` in the pipeline's unit: scale 0 is `yes` itself, scale 4 is 5 elsewhere."""
        return yes + scale * (yes - no)
