"""ERNIE-Image as a family: https://huggingface.co/baidu/ERNIE-Image, ErnieImagePipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import steps_of
from toolkit.models.latents import decode_patches, encode_patches
from toolkit.models.parts import Parts

BLOCKS = r"layers\..*"
EPSILON = 1e-5
"""Of the VAE's batch norm: the pipeline's, because the published configuration states another one."""


class ErnieImageFamily:
    """The verbs of ERNIE-Image. Latents are those of FLUX.2's VAE: 2x2 cells in the channels, normalized."""

    pipeline: ClassVar[str] = "ErnieImagePipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        vae = parts.source.config("vae")
        stride = 2 ** len(vae["block_out_channels"])
        self.facts = Facts(
            channels=4 * vae["latent_channels"],
            stride=stride,
            multiple=stride * 2,
            base_model="ernie_image",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", blocks=BLOCKS, prefix="transformer."),),
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> latents [B, C, h, w]."""
        return encode_patches(self.parts["vae"], pixels, EPSILON)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""
        return decode_patches(self.parts["vae"], latents, EPSILON)

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D]: the last layer but one of the language model; the empty text is one token."""
        return [{"text": self._encode(text)} for text in texts]

    def _encode(self, text: str) -> Tensor:
        encoder, tokenizer = self.parts["text_encoder"], self.parts["tokenizer"]
        ids = tokenizer(text, truncation=True).input_ids or [tokenizer.bos_token_id or 0]
        tokens = torch.tensor([ids], device=encoder.device)
        return encoder(input_ids=tokens, output_hidden_states=True, use_cache=False).hidden_states[-2][0].clone()

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """ERNIE-Image has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        text = cond["text"]
        lengths = cond.lengths.get("text", (text.shape[1],) * len(text))
        return self.denoiser(
            hidden_states=noisy,
            timestep=steps_of(t, self.facts.scheduler, noisy.device),
            text_bth=text,
            text_lens=torch.tensor(lengths).to(noisy.device, non_blocking=True),
            return_dict=False,
        )[0]

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps."""
        return {"sigmas": np.linspace(1.0, 0.0, steps + 1, dtype=np.float32)[:-1]}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
