"""Qwen-Image and its editing versions for the contract test: what the pipelines do around the network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from family_pipelines import trimmed
from family_subject import Case
from torch import Tensor
from transformers import Qwen2VLImageProcessorPil

from extensions_built_in.qwen_image.tiny import save_tiny

AREA, SEEN_AREA = 48 * 64, 64 * 64


def unpacked(pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """[B, L, 4 C] -> [B, C, h, w]."""
    return pipeline._unpack_latents(tokens, height, width, pipeline.vae_scale_factor).squeeze(2)


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """The mode of the posterior, normalized."""
    config = pipeline.vae.config
    mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (config.latents_mean, config.latents_std))
    return (pipeline.vae.encode(pixels.unsqueeze(2)).latent_dist.mode().squeeze(2) - mean) / std


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Any]:
    """Qwen's hidden states without padding."""
    text, mask = pipeline.encode_prompt(texts)
    return {"text": trimmed(text, mask)}


class Processor:
    """What Qwen2VLProcessor does to pictures; that class itself needs torchvision."""

    def __init__(self, images: Any, tokenizer: Any) -> None:
        self.images, self.tokenizer = images, tokenizer

    def __call__(self, text: list[str], images: Any, padding: bool, return_tensors: str) -> Any:
        """Token ids with one pad per 2x2 patches, and the patches."""
        seen = self.images(images=images, return_tensors="pt")
        for grid in seen["image_grid_thw"]:
            text = [part.replace("<|image_pad|>", "<|PAD|>" * (int(grid.prod()) // 4), 1) for part in text]
        text = [part.replace("<|PAD|>", "<|image_pad|>") for part in text]
        tokens = self.tokenizer(text, padding=padding, return_tensors="pt")
        return type(tokens)({**tokens, **seen})


def edit_pipeline(name: str, folder: Path) -> Any:
    """An editing pipeline around the parts, with small pictures and picture positions for the text encoder."""
    parts = diffusers.QwenImagePipeline.from_pretrained(folder).components
    processor = Processor(Qwen2VLImageProcessorPil.from_pretrained(folder / "processor"), parts["tokenizer"])
    pipeline = getattr(diffusers, name)(**parts, processor=None)
    pipeline.processor = processor
    encoder, forward = parts["text_encoder"], parts["text_encoder"].forward

    def with_types(input_ids: Tensor, **inputs: Any) -> Any:
        return forward(input_ids, mm_token_type_ids=(input_ids == encoder.config.image_token_id).int(), **inputs)

    encoder.forward = with_types
    sizes = pipeline_qwenimage_edit.calculate_dimensions
    if name == "QwenImageEditPipeline":
        if sizes(1024 * 1024, 1.0)[0] == 1024:
            pipeline_qwenimage_edit.calculate_dimensions = lambda area, ratio: sizes(AREA, ratio)
    else:
        pipeline_qwenimage_edit_plus.VAE_IMAGE_SIZE = AREA
        pipeline_qwenimage_edit_plus.CONDITION_IMAGE_SIZE = SEEN_AREA
    return pipeline


def edit_case(arch: str, name: str, images: int) -> Case:
    """A variant with reference pictures."""
    return Case(
        arch,
        partial(save_tiny, edit=True),
        latents=unpacked,
        encode_image=encode_image,
        guidance=4.0,
        model={"model_kwargs": {"control_image_max_pixels": AREA, "vlm_max_pixels": SEEN_AREA}},
        images=images,
        load_pipeline=partial(edit_pipeline, name),
        skips={"encode_prompt": "the pipeline wants pictures; parity covers it"},
    )


CASES: dict[str, Case] = {
    "qwen-image": Case(
        "qwen_image",
        save_tiny,
        latents=unpacked,
        encode_image=encode_image,
        encode_prompt=encode_prompt,
        guidance=4.0,
    ),
    "qwen-image-edit": edit_case("qwen_image_edit", "QwenImageEditPipeline", 1),
    "qwen-image-edit-plus": edit_case("qwen_image_edit_plus", "QwenImageEditPlusPipeline", 2),
}
