"""Stable Diffusion 1.x and 2.x as a family: https://github.com/CompVis/stable-diffusion, StableDiffusionPipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from extensions_built_in.stable_diffusion.unet import read_facts
from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import text_length
from toolkit.models.family import Vocabulary
from toolkit.models.flow import steps_of
from toolkit.models.latents import decode_scaled, encode_scaled
from toolkit.models.parts import Parts
from toolkit.models.text import rows, tokenize


class StableDiffusionFamily:
    """The verbs of Stable Diffusion with one text encoder, predicting epsilon or v.

    Latents [B, 4, H/8, W/8]. Text: CLIP's last hidden states with padding, because the network attends to it.
    """

    pipeline: ClassVar[str] = "StableDiffusionPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("unet",),
    }

    def __init__(self, parts: Parts, base_model: str, is_v_pred: bool = False) -> None:
        self.parts = parts
        self._text_length = text_length(parts.source, "tokenizer", 77)
        num_layers = parts.source.config("text_encoder").get("num_hidden_layers", 12)
        vocabulary = Vocabulary("tokenizer", "text_encoder", "emb_params")
        self.facts = read_facts(parts, base_model, is_v_pred, {"text_encoder": num_layers}, (vocabulary,))

    @property
    def denoiser(self) -> torch.nn.Module:
        """The U-Net, while it is loaded."""
        return self.parts["unet"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> latents [B, C, h, w]."""
        return encode_scaled(self.parts["vae"], pixels)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""
        return decode_scaled(self.parts["vae"], latents)

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D], padded."""
        clip = self.parts["text_encoder"]
        ids = tokenize(self.parts["tokenizer"], texts, self._text_length, clip.device)
        return list(rows(text=clip(ids)[0]))

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """There are no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """The noise, or v = a e - s x, [B, C, h, w]."""
        time = steps_of(t, self.facts.scheduler, noisy.device)
        return self.denoiser(noisy, time, encoder_hidden_states=cond["text"], return_dict=False)[0]

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """The scheduler's own steps."""
        return {"num_inference_steps": steps}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
