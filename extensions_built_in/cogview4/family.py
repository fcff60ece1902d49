"""CogView4 as a family: https://github.com/zai-org/CogView4, CogView4Pipeline in diffusers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import transformer_facts
from toolkit.models.flow import steps_of
from toolkit.models.latents import decode_scaled, encode_scaled
from toolkit.models.parts import Parts
from toolkit.models.text import hidden_layers

TEXT_LENGTH = 1024
TEXT_BLOCK = 16
"""Captions are padded in front to a multiple of this; the padding is read like text."""


class CogView4Family:
    """The verbs of CogView4.

    Latents [B, 16, H/8, W/8]. Text: GLM's hidden states but the last, padded to 16, 32, 48... tokens. The network is
    told the noise level before the shift by the picture's size. `size` [B, 6] as in SDXL.
    """

    pipeline: ClassVar[str] = "CogView4Pipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.facts = replace(
            transformer_facts(parts.source, "cogview4", r"transformer_blocks\..*", text_length=TEXT_LENGTH),
            numbers=("size",),
        )

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
        """Rows of `text` [L, D], L a multiple of 16; one by one, because padding changes what GLM makes of a text."""
        return [{"text": self._encode(text)} for text in texts]

    def _encode(self, text: str) -> Tensor:
        tokenizer, encoder = self.parts["tokenizer"], self.parts["text_encoder"]
        ids = tokenizer([text], max_length=TEXT_LENGTH, truncation=True, return_tensors="pt").input_ids
        missing = -ids.shape[1] % TEXT_BLOCK
        ids = torch.nn.functional.pad(ids, (missing, 0), value=tokenizer.pad_token_id).to(encoder.device)
        return hidden_layers(encoder, ids, torch.ones_like(ids), (-2,))[0][0]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """There are no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]; texts of one length at a time, because the network has no sound mask."""
        shift, text = self._shift(noisy.shape[-2] * noisy.shape[-1] // 4), cond["text"]
        time = steps_of(t / (t + shift * (1 - t)), self.facts.scheduler, noisy.device)
        size, lengths = self._size(cond, noisy), cond.lengths.get("text", (text.shape[1],) * len(noisy))
        if len(set(lengths)) == 1:
            return self._predict(noisy, time, text, size)
        answer = torch.empty_like(noisy)
        for length in set(lengths):
            chosen = [index for index, found in enumerate(lengths) if found == length]
            part = self._predict(noisy[chosen], time[chosen], text[chosen, :length], size[chosen])
            answer[chosen] = part.to(answer.dtype)
        return answer

    def _predict(self, noisy: Tensor, time: Tensor, text: Tensor, size: Tensor) -> Tensor:
        original, corner, target = size.split(2, dim=1)
        return self.denoiser(
            hidden_states=noisy,
            encoder_hidden_states=text,
            timestep=time,
            original_size=original,
            target_size=target,
            crop_coords=corner,
            return_dict=False,
        )[0]

    def _size(self, cond: Conditions, noisy: Tensor) -> Tensor:
        given = cond.get("size")
        if given is not None:
            return given.to(torch.float32)
        height, width = (side * self.facts.stride for side in noisy.shape[-2:])
        size = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=noisy.device)
        return size.expand(len(noisy), 6)

    def _shift(self, tokens: int) -> float:
        """a of noise level = a u / (1 + (a - 1) u), where u is what the network is told."""
        scheduler = self.facts.scheduler
        if not scheduler.get("use_dynamic_shifting"):
            return scheduler.get("shift", 1.0)
        mu = self._mu(tokens)
        return mu if scheduler.get("time_shift_type", "exponential") == "linear" else math.exp(mu)

    def _mu(self, tokens: int) -> float:
        """The shift grows with the root of the number of 2x2 tokens."""
        scheduler = self.facts.scheduler
        root = math.sqrt(tokens / scheduler.get("base_image_seq_len", 256))
        return root * scheduler.get("max_shift", 0.75) + scheduler.get("base_shift", 0.25)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Whole steps from 1000 to 1 as noise levels, shifted by the number of 2x2 tokens."""
        count = self.facts.scheduler.get("num_train_timesteps", 1000)
        arguments: dict[str, Any] = {"sigmas": np.linspace(count, 1, steps).astype(np.int64) / count}
        if self.facts.scheduler.get("use_dynamic_shifting"):
            arguments["mu"] = self._mu(shape[-2] * shape[-1] // 4)
        return arguments

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
