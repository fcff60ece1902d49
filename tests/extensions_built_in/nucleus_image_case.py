"""Nucleus-Image for the contract test: what NucleusMoEImagePipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import NucleusMoEImagePipeline
from family_subject import Case
from torch import Tensor
from transformers import AutoTokenizer

from extensions_built_in.nucleus_image.tiny import save_tiny


class Processor:
    """The text side of Qwen3VLProcessor; that class itself needs torchvision."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def apply_chat_template(self, messages: list[Any], **options: Any) -> str:
        """Messages with their texts in the open, as the tiny template wants them."""
        system, user = messages
        user = {**user, "content": user["content"][0]["text"]}
        return self.tokenizer.apply_chat_template([system, user], **options)

    def __call__(self, text: list[str], **options: Any) -> Any:
        """Token ids and their mask."""
        return self.tokenizer(text, **options)


def unpacked(pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """[B, L, 4 C] -> [B, C, h, w]."""
    return pipeline._unpack_latents(tokens, height, width, 2, pipeline.vae_scale_factor).squeeze(2)


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """The mode of the posterior, normalized."""
    config = pipeline.vae.config
    mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (config.latents_mean, config.latents_std))
    return (pipeline.vae.encode(pixels.unsqueeze(2)).latent_dist.mode().squeeze(2) - mean) / std


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Any]:
    """A layer of the language model, without padding."""
    text, mask = pipeline.encode_prompt(texts, max_sequence_length=1024)
    return {"text": [row[keep.bool()] for row, keep in zip(text, mask, strict=True)]}


def load_pipeline(folder: Path) -> Any:
    """The pipeline with a processor that needs no torchvision."""
    pipeline = NucleusMoEImagePipeline.from_pretrained(folder, processor=None)
    pipeline.processor = Processor(AutoTokenizer.from_pretrained(folder / "processor"))
    return pipeline


def load_lora(pipeline: Any, files: Sequence[Path]) -> None:
    """The file into the transformer: the pipeline has no loader of its own."""
    (file,) = files
    pipeline.transformer.load_lora_adapter(file, prefix="transformer")


CASES: dict[str, Case] = {
    "nucleus-image": Case(
        "nucleus_image",
        save_tiny,
        latents=unpacked,
        encode_image=encode_image,
        encode_prompt=encode_prompt,
        guidance=4.0,
        load_pipeline=load_pipeline,
        load_lora=load_lora,
    )
}
