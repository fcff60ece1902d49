"""LongCat-Image as a family: https://github.com/meituan-longcat/LongCat-Image, LongCatImagePipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers.pipelines.longcat_image.pipeline_longcat_image import split_quotation
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import text_length, transformer_facts
from toolkit.models.flow import flow_steps
from toolkit.models.latents import decode_scaled, encode_scaled, grid_ids, pack, unpack
from toolkit.models.parts import Parts
from toolkit.models.text import hidden_layers, rows

BLOCKS = r"(transformer_blocks|single_transformer_blocks)\..*"
BEFORE = (
    "<|im_start|>system\nAs an image captioning expert, generate a descriptive text prompt based on an image content, "
    "suitable for input to a text-to-image model.<|im_end|>\n<|im_start|>user\n"
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n"


class LongCatImageFamily:
    """The verbs of LongCat-Image.

    Latents [B, 16, H/8, W/8] are packed into 2x2 tokens. Text: the last layer of Qwen2.5-VL at the 512 places between
    the template's two halves, padding included, because the network attends to it; quoted text is spelled in letters.
    """

    pipeline: ClassVar[str] = "LongCatImagePipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._text_length = text_length(parts.source, "tokenizer", 512)
        self.facts = transformer_facts(parts.source, "longcat_image", BLOCKS, text_length=self._text_length)

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
        tokenizer, encoder = self.parts["tokenizer"], self.parts["text_encoder"]
        before, after = (tokenizer(half, add_special_tokens=False).input_ids for half in (BEFORE, AFTER))
        padded = tokenizer.pad(
            {"input_ids": [self._token_ids(text) for text in texts]},
            max_length=self._text_length,
            padding="max_length",
            return_tensors="pt",
        )
        halves = [torch.tensor(half).expand(len(texts), -1) for half in (before, after)]
        ids = torch.cat([halves[0], padded.input_ids, halves[1]], dim=1)
        mask = pad(padded.attention_mask, (len(before), len(after)), value=1)
        (hidden,) = hidden_layers(encoder, ids.to(encoder.device), mask.to(encoder.device), (-1,))
        return list(rows(text=hidden[:, len(before) : -len(after)]))

    def _token_ids(self, text: str) -> list[int]:
        """Words as usual, but what stands between quotation marks (and these) letter by letter."""
        tokenizer = self.parts["tokenizer"]
        pieces = [piece for part, is_quoted in split_quotation(text) for piece in (list(part) if is_quoted else [part])]
        found = [token for piece in pieces for token in tokenizer(piece, add_special_tokens=False).input_ids]
        return found[: self._text_length]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """LongCat-Image has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        h, w = noisy.shape[-2:]
        text = cond["text"]
        places = torch.arange(text.shape[1], device=noisy.device)
        # pictures lie behind the longest text along both axes
        first = torch.tensor([1, self._text_length, self._text_length], device=noisy.device)
        answer = self.denoiser(
            hidden_states=pack(noisy),
            timestep=t.to(noisy.device, torch.float32, non_blocking=True),
            encoder_hidden_states=text,
            txt_ids=torch.stack([torch.zeros_like(places), places, places], dim=1),
            img_ids=grid_ids(h // 2, w // 2, device=noisy.device) + first,
            return_dict=False,
        )[0]
        return unpack(answer, h, w)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps, shifted by the number of 2x2 tokens."""
        return flow_steps(steps, shape[-2] * shape[-1] // 4, self.facts.scheduler)

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Classifier-free guidance, with tokens that have grown longer cut back to the length of `yes`."""
        h, w = yes.shape[-2:]
        out, size = pack(no + scale * (yes - no)), pack(yes).norm(dim=-1, keepdim=True)
        return unpack(out * (size / (out.norm(dim=-1, keepdim=True) + 1e-8)).clamp(max=1), h, w)
