"""Sana as a family: Xie et al. (2024), https://arxiv.org/abs/2410.10629, SanaPipeline in diffusers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import SanaPipeline
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import steps_of
from toolkit.models.latents import decode_scaled, encode_scaled
from toolkit.models.parts import Parts
from toolkit.models.text import masked_tokens, trim

BLOCKS = r"transformer_blocks\..*"
TEXT_LENGTH = 300
INSTRUCTION = "\n".join(inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default)
"""The checkpoint's "complex human instruction", before every prompt but the negative one."""


class SanaFamily:
    """The verbs of Sana. Of the encoded instruction and prompt, the network sees the first and the last 299 tokens."""

    pipeline: ClassVar[str] = "SanaPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        vae, transformer = parts.source.config("vae"), parts.source.config("transformer")
        self._time_scale = transformer.get("timestep_scale", 1.0)
        stride = 2 ** (len(vae["encoder_block_out_channels"]) - 1)
        self.facts = Facts(
            channels=vae["latent_channels"],
            stride=stride,
            multiple=stride * transformer.get("patch_size", 1),
            text_length=TEXT_LENGTH,
            base_model="sana",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", blocks=BLOCKS, prefix="transformer."),),
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
        """Rows of `text` [L, D]: Gemma's last layer, without padding."""
        encoder, tokenizer = self.parts["text_encoder"], self.parts["tokenizer"]
        tokenizer.padding_side = "right"
        prompts, length = [text.lower().strip() for text in texts], TEXT_LENGTH
        if not negative:
            prompts = [INSTRUCTION + text for text in prompts]
            length += len(tokenizer.encode(INSTRUCTION)) - 2
        ids, mask = masked_tokens(tokenizer, prompts, length, encoder.device)
        hidden = encoder(ids, attention_mask=mask)[0]
        seen = [0, *range(length - TEXT_LENGTH + 1, length)]
        return [{"text": text} for text in trim(hidden[:, seen], mask[:, seen])]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Sana has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        answer = self.denoiser(
            noisy,
            encoder_hidden_states=cond["text"],
            encoder_attention_mask=cond.mask("text"),
            timestep=steps_of(t * self._time_scale, self.facts.scheduler, noisy.device),
            return_dict=False,
        )[0]
        # some checkpoints answer a variance too
        return answer[:, : self.facts.channels]

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """The scheduler's own spacing."""
        return {"num_inference_steps": steps}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
