"""Stable Diffusion XL as a family: Podell et al. (2023), StableDiffusionXLPipeline in diffusers."""

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

ENCODERS = ("text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")
VOCABULARIES = (
    Vocabulary("tokenizer", "text_encoder", "clip_l"),
    Vocabulary("tokenizer_2", "text_encoder_2", "clip_g"),
)


class SdxlFamily:
    """The verbs of SDXL and its distilled sisters, predicting epsilon or v.

    Latents [B, 4, H/8, W/8]. Text: the last hidden states but one of both CLIPs side by side, with padding, and the
    second one's pooled vector. `size` [B, 6]: original height and width, top and left of the crop, target height and
    width; by default those of an uncropped picture of the target's size.
    """

    pipeline: ClassVar[str] = "StableDiffusionXLPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": (*TOKENIZERS, *ENCODERS),
        "predict": ("unet",),
    }

    def __init__(
        self, parts: Parts, base_model: str, is_v_pred: bool = False, used: tuple[bool, bool] = (True, True)
    ) -> None:
        self.parts = parts
        self._used = used
        self._forces_zeros = bool(parts.source.index().get("force_zeros_for_empty_prompt", True))
        self._text_length = text_length(parts.source, "tokenizer", 77)
        # the last layer of the first encoder is computed for nothing; the second one's makes the pooled vector
        unseen = {"text_encoder": 1, "text_encoder_2": 0}
        layers = {
            name: parts.source.config(name).get("num_hidden_layers", 12) - unseen[name]
            for name, is_used in zip(ENCODERS, used, strict=True)
            if is_used
        }
        self.facts = read_facts(parts, base_model, is_v_pred, layers, VOCABULARIES, numbers=("size",))

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
        """Rows of `text` [L, D1 + D2] and `pooled` [P]; zeros for an empty negative prompt where SDXL wants them."""
        states, pooled = [], torch.empty(0)
        for name, tokenizer, is_used in zip(ENCODERS, TOKENIZERS, self._used, strict=True):
            clip = self.parts[name]
            ids = tokenize(self.parts[tokenizer], texts, self._text_length, clip.device)
            answer = clip(ids, output_hidden_states=True)
            states.append(answer.hidden_states[-2] * is_used)
            pooled = answer[0] * is_used
        found = rows(text=torch.cat(states, dim=-1), pooled=pooled)
        empty = [negative and self._forces_zeros and not text for text in texts]
        return [
            {name: torch.zeros_like(tensor) for name, tensor in row.items()} if is_empty else row
            for row, is_empty in zip(found, empty, strict=True)
        ]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """There are no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """The noise, or v = a e - s x, [B, C, h, w]."""
        added = {"text_embeds": cond["pooled"], "time_ids": self._size(cond, noisy)}
        return self.denoiser(
            noisy,
            steps_of(t, self.facts.scheduler, noisy.device),
            encoder_hidden_states=cond["text"],
            added_cond_kwargs=added,
            return_dict=False,
        )[0]

    def _size(self, cond: Conditions, noisy: Tensor) -> Tensor:
        given = cond.get("size")
        if given is not None:
            return given.to(torch.float32)
        height, width = (side * self.facts.stride for side in noisy.shape[-2:])
        size = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=noisy.device)
        return size.expand(len(noisy), 6)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """The scheduler's own steps."""
        return {"num_inference_steps": steps}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
