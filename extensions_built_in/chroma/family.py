"""Chroma as a family: https://huggingface.co/lodestones/Chroma1-HD, ChromaPipeline in diffusers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from diffusers.models.transformers.transformer_chroma import ChromaSingleTransformerBlock
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import text_length, transformer_facts
from toolkit.models.flow import flow_steps
from toolkit.models.latents import decode_scaled, encode_scaled, grid_ids, pack, unpack
from toolkit.models.parts import Parts
from toolkit.models.text import masked_tokens, trim

BLOCKS = r"(transformer_blocks|single_transformer_blocks)\..*"


class ChromaFamily:
    """The verbs of Chroma.

    Latents [B, 16, H/8, W/8] are packed into 2x2 tokens. Text: T5's tokens and one pad; the network was trained to see
    just the first pad, so the others are cut off and batches are masked.
    """

    pipeline: ClassVar[str] = "ChromaPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._text_length = text_length(parts.source, "tokenizer", 512)
        self.facts = transformer_facts(parts.source, "chroma", BLOCKS, cells=4, text_length=self._text_length)

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
        """Rows of `text` [L, D]: T5's hidden states of the words and of the first pad."""
        encoder = self.parts["text_encoder"]
        ids, mask = masked_tokens(self.parts["tokenizer"], texts, self._text_length, encoder.device)
        hidden = encoder(ids, attention_mask=mask)[0]
        seen = torch.arange(ids.shape[1], device=ids.device) <= mask.sum(dim=1, keepdim=True)
        return [{"text": text} for text in trim(hidden, seen)]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Chroma has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        h, w = noisy.shape[-2:]
        text, tokens = cond["text"], pack(noisy)
        mask = None
        if "text" in cond.lengths:
            # of bools: diffusers' own pipeline passes floats, which the attention adds instead of masking
            mask = torch.nn.functional.pad(cond.mask("text"), (0, tokens.shape[1]), value=True)
        with masked_checkpoints(self.denoiser, mask):
            answer = self.denoiser(
                hidden_states=tokens,
                timestep=t.to(noisy.device, torch.float32, non_blocking=True),
                encoder_hidden_states=text,
                txt_ids=torch.zeros(text.shape[1], 3, device=noisy.device),
                img_ids=grid_ids(h // 2, w // 2, device=noisy.device),
                attention_mask=mask,
                return_dict=False,
            )[0]
        return unpack(answer, h, w)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps, shifted by the number of 2x2 tokens."""
        return flow_steps(steps, shape[-2] * shape[-1] // 4, self.facts.scheduler)

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)


@contextmanager
def masked_checkpoints(transformer: Any, mask: Tensor | None) -> Iterator[None]:
    """Give the mask to the checkpointed single blocks too: diffusers 0.42 leaves it out there.

    It becomes an argument of each checkpoint, so that a block is recomputed with the mask of its own forward pass.
    """
    real = getattr(transformer, "_gradient_checkpointing_func", None)
    if mask is None or real is None:
        yield
        return

    def checkpoint(block: Any, *inputs: Any) -> Any:
        lacks_mask = isinstance(block, ChromaSingleTransformerBlock) and len(inputs) == 3
        return real(block, *inputs, mask) if lacks_mask else real(block, *inputs)

    transformer._gradient_checkpointing_func = checkpoint
    try:
        yield
    finally:
        transformer._gradient_checkpointing_func = real
