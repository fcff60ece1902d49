"""PixArt as a family: Chen et al. (2023, 2024), PixArtAlphaPipeline and PixArtSigmaPipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import transformer_facts
from toolkit.models.flow import steps_of
from toolkit.models.latents import decode_scaled, encode_scaled
from toolkit.models.parts import Parts
from toolkit.models.text import masked_tokens, trim


class PixArtFamily:
    """The verbs of PixArt, predicting epsilon.

    Latents [B, 4, H/8, W/8]. Text: T5's hidden states of the lower-cased caption, without padding. The network answers
    a variance beside the noise, which is not trained. PixArt-alpha for 1024 pixels also sees the picture's size.
    """

    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts, pipeline: str, text_length: int) -> None:
        self.parts, self.pipeline = parts, pipeline
        self._text_length = text_length
        self.facts = replace(
            transformer_facts(parts.source, "pixart", r"transformer_blocks\..*", text_length=text_length),
            prediction="epsilon",
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
        """Rows of `text` [L, D]."""
        t5 = self.parts["text_encoder"]
        texts = [text.lower().strip() for text in texts]
        ids, mask = masked_tokens(self.parts["tokenizer"], texts, self._text_length, t5.device)
        return [{"text": text} for text in trim(t5(ids, attention_mask=mask)[0], mask)]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """There are no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """The noise, [B, C, h, w]."""
        return self.denoiser(
            noisy,
            encoder_hidden_states=cond["text"],
            encoder_attention_mask=cond.mask("text"),
            timestep=steps_of(t, self.facts.scheduler, noisy.device),
            added_cond_kwargs=self._size(noisy),
            return_dict=False,
        )[0][:, : self.facts.channels]

    def _size(self, noisy: Tensor) -> dict[str, Tensor | None]:
        if not self.denoiser.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (side * self.facts.stride for side in noisy.shape[-2:])
        resolution = torch.tensor([[height, width]], dtype=torch.float32, device=noisy.device)
        ratio = torch.tensor([[height / width]], dtype=torch.float32, device=noisy.device)
        return {"resolution": resolution.expand(len(noisy), 2), "aspect_ratio": ratio.expand(len(noisy), 1)}

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """The scheduler's own steps."""
        return {"num_inference_steps": steps}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
