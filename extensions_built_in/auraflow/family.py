"""AuraFlow as a family: https://huggingface.co/fal/AuraFlow-v0.3, AuraFlowPipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import text_length, transformer_facts
from toolkit.models.latents import decode_scaled, encode_scaled
from toolkit.models.parts import Parts
from toolkit.models.text import masked_tokens, trim

BLOCKS = r"(joint_transformer_blocks|single_transformer_blocks)\..*"


class AuraFlowFamily:
    """The verbs of AuraFlow.

    Latents [B, 4, H/8, W/8]. Text: the encoder's hidden states; the network attends to 256 tokens, zeros at the end.
    """

    pipeline: ClassVar[str] = "AuraFlowPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._text_length = text_length(parts.source, "tokenizer", 256)
        self.facts = transformer_facts(parts.source, "auraflow", BLOCKS, text_length=self._text_length)

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
        """Rows of `text` [L, D], without padding."""
        encoder = self.parts["text_encoder"]
        ids, mask = masked_tokens(self.parts["tokenizer"], texts, self._text_length, encoder.device)
        return [{"text": text} for text in trim(encoder(ids, attention_mask=mask)[0], mask)]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """There are no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        text = cond["text"]
        return self.denoiser(
            noisy,
            encoder_hidden_states=torch.nn.functional.pad(text, (0, 0, 0, self._text_length - text.shape[1])),
            timestep=t.to(noisy.device, torch.float32, non_blocking=True),
            return_dict=False,
        )[0]

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """The scheduler's own steps."""
        return {"num_inference_steps": steps}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
