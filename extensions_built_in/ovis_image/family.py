"""Ovis-Image as a family: https://github.com/AIDC-AI/Ovis-Image, OvisImagePipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import text_length, transformer_facts
from toolkit.models.flow import flow_steps
from toolkit.models.latents import decode_scaled, encode_scaled, grid_ids, pack, unpack
from toolkit.models.parts import Parts
from toolkit.models.text import chat_text, trim

BLOCKS = r"(transformer_blocks|single_transformer_blocks)\..*"
INSTRUCTION = (
    "Describe the image by detailing the color, quantity, text, shape, size, texture, spatial relationships of the "
    "objects and background: "
)
TEMPLATE_TOKENS = 28
"""How many tokens the chat template and the instruction take; they are cut off."""


class OvisImageFamily:
    """The verbs of Ovis-Image.

    Latents [B, 16, H/8, W/8] are packed into 2x2 tokens. Text: Qwen3's hidden states, with zeros behind them up to 256
    tokens, which the network attends to.
    """

    pipeline: ClassVar[str] = "OvisImagePipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._text_length = text_length(parts.source, "tokenizer", 256 + TEMPLATE_TOKENS) - TEMPLATE_TOKENS
        self.facts = transformer_facts(parts.source, "ovis_image", BLOCKS, text_length=self._text_length)

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
        tokenizer, encoder = self.parts["tokenizer"], self.parts["text_encoder"]
        found = tokenizer(
            [chat_text(tokenizer, INSTRUCTION + text, thinking=False) for text in texts],
            padding="max_length",
            truncation=True,
            max_length=TEMPLATE_TOKENS + self._text_length,
            add_special_tokens=False,
            return_tensors="pt",
        ).to(encoder.device)
        hidden = encoder(input_ids=found.input_ids, attention_mask=found.attention_mask).last_hidden_state
        return [{"text": text} for text in trim(hidden[:, TEMPLATE_TOKENS:], found.attention_mask[:, TEMPLATE_TOKENS:])]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Ovis-Image has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        h, w = noisy.shape[-2:]
        text = cond["text"]
        text = pad(text, (0, 0, 0, self._text_length - text.shape[1]))
        places = torch.arange(self._text_length, device=noisy.device)
        answer = self.denoiser(
            hidden_states=pack(noisy),
            timestep=t.to(noisy.device, torch.float32, non_blocking=True),
            encoder_hidden_states=text,
            txt_ids=torch.stack([torch.zeros_like(places), places, places], dim=1),
            img_ids=grid_ids(h // 2, w // 2, device=noisy.device),
            return_dict=False,
        )[0]
        return unpack(answer, h, w)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps, shifted by the number of 2x2 tokens."""
        return flow_steps(steps, shape[-2] * shape[-1] // 4, self.facts.scheduler)

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
