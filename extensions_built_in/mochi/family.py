"""Mochi 1 as a family: https://github.com/genmoai/mochi, MochiPipeline in diffusers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import steps_of
from toolkit.models.latents import as_video, decode_standardized, encode_standardized
from toolkit.models.parts import Parts
from toolkit.models.text import masked_tokens, trim

TEXT_LENGTH = 256
THRESHOLD = 0.025
"""How much of the way the first half of the steps goes, in equal parts; the rest is quadratic."""


class MochiFamily:
    """The verbs of Mochi 1.

    The network counts time from noise to data and answers x - e; its scheduler's inverted levels are turned around
    here, so that t = 1 is noise as everywhere.
    """

    pipeline: ClassVar[str] = "MochiPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.facts = self._read_facts(parts)

    @staticmethod
    def _read_facts(parts: Parts) -> Facts:
        vae = parts.source.config("vae")
        stride = math.prod(vae.get("spatial_expansions", (2, 2, 2)))
        last = parts.source.config("transformer").get("num_layers", 48) - 1
        return Facts(
            channels=vae.get("latent_channels", 12),
            stride=stride,
            frame_stride=math.prod(vae.get("temporal_expansions", (1, 2, 3))),
            multiple=stride * 2,
            text_length=TEXT_LENGTH,
            base_model="mochi",
            scheduler={**parts.source.config("scheduler"), "invert_sigmas": False},
            # of the last block, what the text asks is dropped
            trainables=(
                Trainable("transformer", rf"transformer_blocks\.(?!{last}\.attn1\.add_q_proj).*", "transformer."),
            ),
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, (F,) H, W] in -1..1 -> latents [B, C, f, h, w]."""
        return encode_standardized(self.parts["vae"], as_video(pixels))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, f, h, w] -> pixels [B, 3, F, H, W] in -1..1."""
        return decode_standardized(self.parts["vae"], latents)

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D]: T5's hidden states without padding."""
        encoder = self.parts["text_encoder"]
        ids, mask = masked_tokens(self.parts["tokenizer"], texts, TEXT_LENGTH, encoder.device, padding="longest")
        return [{"text": hidden} for hidden in trim(encoder(ids, attention_mask=mask)[0], mask)]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Mochi 1 has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, f, h, w]."""
        return -self.denoiser(
            hidden_states=noisy,
            encoder_hidden_states=cond["text"],
            timestep=steps_of(1 - t, self.facts.scheduler, noisy.device),
            encoder_attention_mask=cond.mask("text"),
            return_dict=False,
        )[0]

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Small equal steps for the first half, then growing ones: level 1 - THRESHOLD at the middle, 0 at the end."""
        half = max(1, steps // 2)
        linear = THRESHOLD * np.arange(half) / half
        rest = steps - half
        # the parabola meets the line with its slope at `half`, and 1 at `steps`
        place = np.arange(rest) / max(1, rest)
        slope = THRESHOLD * rest / half
        curve = THRESHOLD + slope * place + (1 - THRESHOLD - slope) * place**2
        return {"sigmas": 1 - np.concatenate([linear, curve])}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
