"""Qwen-Image 2.1 for the contract test: what QwenImage21Pipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from family_subject import Case
from torch import Tensor
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

from extensions_built_in.qwen_image_21.tiny import save_tiny


class Processor:
    """The text side of Qwen3VLProcessor; that class itself needs torchvision."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def apply_chat_template(self, messages: list[Any], tokenize: bool, return_dict: bool) -> list[list[int]]:
        """Token ids of one message with its text in the open, as the tiny template wants it."""
        plain = [{**message, "content": message["content"][0]["text"]} for message in messages]
        return [self.tokenizer.apply_chat_template(plain, tokenize=tokenize, return_dict=return_dict)]

    def __call__(self, text: list[str], **options: Any) -> Any:
        """Token ids and their mask."""
        return self.tokenizer(text, **options)


class OnePerCall(QwenImage21Pipeline):
    """The pipeline, which moves a picture behind the longest text, one by one; pictures without transparency."""

    def __call__(
        self, prompt: list[str], negative_prompt: list[str], generator: list[Any], guidance_scale: float, **options: Any
    ) -> Any:
        made = [
            super(OnePerCall, self)
            .__call__([one], negative_prompt=[no], generator=[rng], true_cfg_scale=guidance_scale, **options)
            .images
            for one, no, rng in zip(prompt, negative_prompt, generator, strict=True)
        ]
        images = torch.cat(made)
        return SimpleNamespace(images=images if options["output_type"] == "latent" else images[:, :3])


def load_pipeline(folder: Path) -> Any:
    """The pipeline with a processor that needs no torchvision, taking as many steps as it is told."""
    return OnePerCall(
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler"),
        vae=AutoencoderKLQwenImage21.from_pretrained(folder, subfolder="vae"),
        text_encoder=Qwen3VLForConditionalGeneration.from_pretrained(folder, subfolder="text_encoder"),
        processor=Processor(AutoTokenizer.from_pretrained(folder / "processor")),
        transformer=QwenImage21Transformer2DModel.from_pretrained(folder, subfolder="transformer"),
    )


def unpacked(pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """[B, L, C] -> [B, C, h, w]."""
    return pipeline._unpack_latents(tokens, height, width, pipeline.vae_scale_factor).squeeze(2)


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """The pipeline's latents of an opaque picture."""
    opaque = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)
    return pipeline._encode_vae_image(opaque.unsqueeze(2), generator=None).squeeze(2)


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Any]:
    """The language model's last layer, without padding."""
    return {"text": [pipeline.encode_prompt([text])[0][0] for text in texts]}


CASES: dict[str, Case] = {
    "qwen-image-21": Case(
        "qwen_image_21",
        save_tiny,
        latents=unpacked,
        encode_image=encode_image,
        encode_prompt=encode_prompt,
        guidance=3.0,
        sizes=(96, 64),
        load_pipeline=load_pipeline,
    )
}
