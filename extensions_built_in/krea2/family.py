"""Krea 2 as a family: https://huggingface.co/krea/Krea-2-Raw, Krea2Pipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import linear_mu
from toolkit.models.latents import decode_standardized, encode_standardized, grid_ids, pack, unpack
from toolkit.models.parts import Parts
from toolkit.models.text import hidden_layers

BLOCKS = r"transformer_blocks\..*"
BEFORE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
NUM_DROPPED = 34
"""Tokens of `BEFORE`, which the network does not see."""
TEXT_LENGTH = 512
NUM_AFTER = 5
TAPPED = (2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35)
"""Layers of Qwen3-VL that the network sees, where the checkpoint names none."""
DISTILLED_MU = 1.15


class Krea2Family:
    """The verbs of Krea 2. Latents are packed into tokens; a text token is a stack of hidden states."""

    pipeline: ClassVar[str] = "Krea2Pipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        vae, index = parts.source.config("vae"), parts.source.index()
        self.tapped = tuple(index.get("text_encoder_select_layers") or TAPPED)
        self.is_distilled = bool(index.get("is_distilled"))
        self.patch = int(index.get("patch_size") or 2)
        stride = 2 ** len(vae["temperal_downsample"])
        self.facts = Facts(
            channels=vae["z_dim"],
            stride=stride,
            multiple=stride * self.patch,
            text_length=TEXT_LENGTH,
            base_model="krea2",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", blocks=BLOCKS, prefix="transformer."),),
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> latents [B, C, h, w]."""
        return encode_standardized(self.parts["vae"], pixels.unsqueeze(2)).squeeze(2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""
        return decode_standardized(self.parts["vae"], latents.unsqueeze(2)).squeeze(2)

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, layers * D]: some layers of Qwen3-VL beside each other, without padding."""
        return [{"text": self._encode(text)} for text in texts]

    def _encode(self, text: str) -> Tensor:
        encoder, tokenizer = self.parts["text_encoder"], self.parts["tokenizer"]
        room = TEXT_LENGTH + NUM_DROPPED - NUM_AFTER
        ids = tokenizer(BEFORE + text, truncation=True, max_length=room).input_ids + tokenizer(AFTER).input_ids
        tokens = torch.tensor([ids], device=encoder.device)
        layers = hidden_layers(encoder, tokens, torch.ones_like(tokens), self.tapped)
        return torch.cat(layers, dim=-1)[0, NUM_DROPPED:].clone()

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Krea 2 has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]. All text tokens are at the origin of the grid."""
        h, w = noisy.shape[-2:]
        text, device = cond["text"], noisy.device
        grid = grid_ids(h // self.patch, w // self.patch, device=device)
        answer = self.denoiser(
            hidden_states=pack(noisy, self.patch),
            encoder_hidden_states=text.unflatten(-1, (len(self.tapped), -1)),
            timestep=t.to(device, torch.float32, non_blocking=True),
            position_ids=torch.cat([torch.zeros(text.shape[1], 3, device=device), grid]),
            encoder_attention_mask=cond.mask("text") if "text" in cond.lengths else None,
            return_dict=False,
        )[0]
        return unpack(answer, h, w, self.patch)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps, shifted by the number of tokens, or always alike in a distilled checkpoint."""
        tokens = shape[-2] * shape[-1] // self.patch**2
        mu = DISTILLED_MU if self.is_distilled else linear_mu(tokens, self.facts.scheduler)
        return {"sigmas": np.linspace(1.0, 1 / steps, steps), "mu": mu}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Away from `no` in the pipeline's unit: scale 0 is `yes` itself, scale 4.5 is 5.5 elsewhere."""
        return yes + scale * (yes - no)
