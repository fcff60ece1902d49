"""Kandinsky 5 for the contract test: what Kandinsky5T2IPipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    Kandinsky5T2IPipeline,
    Kandinsky5Transformer3DModel,
)
from family_subject import Case
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer, Qwen2_5_VLForConditionalGeneration

from extensions_built_in.kandinsky5.tiny import save_tiny


class Processor:
    """The text side of Qwen2VLProcessor; that class itself needs torchvision."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: list[str], images: None, videos: None, **options: Any) -> Any:
        """Token ids and their mask."""
        return self.tokenizer(text, **options)


class OnePerCall(Kandinsky5T2IPipeline):
    """The pipeline, which attends to padding, one by one, in any size, its noise drawn as [C, h, w]."""

    def __call__(
        self, prompt: list[str], negative_prompt: list[str], generator: list[Any], **options: Any
    ) -> SimpleNamespace:
        height, width = options["height"], options["width"]
        self.resolutions = [(width, height)]
        made = []
        for one, no, rng in zip(prompt, negative_prompt, generator, strict=True):
            noise = torch.randn(1, 4, 1, height // 8, width // 8, generator=rng).permute(0, 2, 3, 4, 1)
            made.append(super().__call__([one], negative_prompt=[no], latents=noise, **options).image)
        return SimpleNamespace(images=torch.cat(made))


def load_pipeline(folder: Path) -> Any:
    """The pipeline with a processor that needs no torchvision."""
    return OnePerCall(
        transformer=Kandinsky5Transformer3DModel.from_pretrained(folder, subfolder="transformer"),
        vae=AutoencoderKL.from_pretrained(folder, subfolder="vae"),
        text_encoder=Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, subfolder="text_encoder"),
        tokenizer=Processor(AutoTokenizer.from_pretrained(folder / "tokenizer")),
        text_encoder_2=CLIPTextModel.from_pretrained(folder, subfolder="text_encoder_2"),
        tokenizer_2=CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer_2"),
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler"),
    )


def channels_first(pipeline: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """[B, 1, h, w, C] -> [B, C, h, w]."""
    return latents[:, 0].permute(0, 3, 1, 2)


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """The inverse of what the pipeline does before it decodes."""
    return pipeline.vae.encode(pixels).latent_dist.mode() * pipeline.vae.config.scaling_factor


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Any]:
    """The language model's last layer and CLIP's pooled output, text by text."""
    made = [pipeline.encode_prompt(text) for text in texts]
    return {"text": [words[0] for words, _, _ in made], "pooled": [whole[0] for _, whole, _ in made]}


CASES: dict[str, Case] = {
    "kandinsky5": Case(
        "kandinsky5",
        save_tiny,
        latents=channels_first,
        encode_image=encode_image,
        encode_prompt=encode_prompt,
        guidance=3.5,
        sizes=(48, 32),
        load_pipeline=load_pipeline,
        # the network rounds queries and keys to bf16 at all times, now and then to the other neighbor
        tolerances={"parity": 1e-3, "lora_file": 1e-3},
    )
}
