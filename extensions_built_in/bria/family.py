"""BRIA 3 as a family: https://huggingface.co/briaai/BRIA-3.2, BriaPipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import text_length, transformer_facts
from toolkit.models.flow import flow_steps, steps_of
from toolkit.models.latents import decode_scaled, encode_scaled, grid_ids, pack, unpack
from toolkit.models.parts import Parts

BLOCKS = r"(transformer_blocks|single_transformer_blocks)\..*"
TEXT_LENGTH = 128


class BriaFamily:
    """The verbs of BRIA.

    Latents [B, 4, H/8, W/8] are packed into 2x2 tokens. Text: T5's hidden states, with zeros behind them up to 128
    tokens, which the network attends to; an empty negative prompt is zeros alone.
    """

    pipeline: ClassVar[str] = "BriaPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._text_length = text_length(parts.source, "tokenizer", TEXT_LENGTH)
        self.facts = transformer_facts(parts.source, "bria", BLOCKS, text_length=self._text_length)

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
        """Rows of `text` [L, D]: the hidden states of the prompt's tokens."""
        return [{"text": self._encode_text(text) if text or not negative else self._zero()} for text in texts]

    def _encode_text(self, text: str) -> Tensor:
        """[L, D] of one text, alone because T5 gets no mask."""
        tokenizer, encoder = self.parts["tokenizer"], self.parts["text_encoder"]
        ids = tokenizer(text, max_length=self._text_length, truncation=True, return_tensors="pt").input_ids
        return encoder(ids.to(encoder.device))[0][0]

    def _zero(self) -> Tensor:
        encoder = self.parts["text_encoder"]
        return torch.zeros(1, encoder.config.d_model, device=encoder.device)

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """BRIA has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        h, w = noisy.shape[-2:]
        text = cond["text"]
        answer = self.denoiser(
            hidden_states=pack(noisy),
            timestep=steps_of(t, self.facts.scheduler, noisy.device),
            encoder_hidden_states=pad(text, (0, 0, 0, self._text_length - text.shape[1])),
            txt_ids=torch.zeros(self._text_length, 3, device=noisy.device),
            img_ids=grid_ids(h // 2, w // 2, device=noisy.device),
            return_dict=False,
        )[0]
        return unpack(answer, h, w)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels shifted by the number of 2x2 tokens, or from 1 to 1/1000 in equal steps."""
        config = self.facts.scheduler
        if config.get("use_dynamic_shifting"):
            return flow_steps(steps, shape[-2] * shape[-1] // 4, config)
        count = int(config.get("num_train_timesteps", 1000))
        return {"sigmas": 1 - np.linspace(0, count - 1, steps).astype(int) / count}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
