"""PRX Pixel as a family: https://huggingface.co/Photoroom/prxpixel-t2i, PRXPixelPipeline in diffusers."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.parts import Parts
from toolkit.models.text import masked_tokens, trim

BLOCKS = r"blocks\..*"
FIRST_TIME = 0.05
"""The network's picture is turned into a velocity as if no time were earlier."""


class PRXPixelFamily:
    """The verbs of PRX Pixel, which works on pixels and answers with the clean picture.

    It was trained with noise of a larger deviation than 1. Latents are pixels divided by that deviation, so that noise
    of deviation 1 is mixed in at the same ratio.
    """

    pipeline: ClassVar[str] = "PRXPixelPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": (),
        "decode": (),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        index, transformer = parts.source.index(), parts.source.config("transformer")
        self.noise_scale = float(index.get("noise_scale", 2.0))
        self.text_length = int(index.get("prompt_max_tokens", 256))
        self.facts = Facts(
            channels=transformer["in_channels"],
            stride=1,
            multiple=transformer["patch_size"],
            text_length=self.text_length,
            base_model="prx_pixel",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", blocks=BLOCKS, prefix="transformer."),),
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> latents [B, 3, H, W]."""
        return pixels.float() / self.noise_scale

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, 3, H, W] -> pixels [B, 3, H, W] in -1..1."""
        return latents.float() * self.noise_scale

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D]: the last layer of Qwen3-VL, without padding; the empty text has no tokens."""
        encoder = self.parts["text_encoder"]
        plain = [html.unescape(html.unescape(text)).strip() for text in texts]
        ids, mask = masked_tokens(self.parts["tokenizer"], plain, self.text_length, encoder.device)
        hidden = encoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return [{"text": text} for text in trim(hidden, mask)]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """PRX has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, 3, H, W], from the clean picture that the network answers with."""
        time = t.to(noisy.device, torch.float32, non_blocking=True)
        clean = self.denoiser(
            hidden_states=noisy * self.noise_scale,
            timestep=time,
            encoder_hidden_states=cond["text"],
            attention_mask=cond.mask("text") if "text" in cond.lengths else None,
            return_dict=False,
        )[0]
        return (noisy - clean.float() / self.noise_scale) / time.clamp(min=FIRST_TIME).view(-1, 1, 1, 1)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """The scheduler's own noise levels."""
        return {"num_inference_steps": steps}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
