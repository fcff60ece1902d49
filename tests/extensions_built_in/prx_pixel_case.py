"""PRX Pixel for the contract test: what PRXPixelPipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import PRXPixelPipeline
from diffusers.pipelines.prx import pipeline_prx_pixel
from family_subject import Case
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from extensions_built_in.prx_pixel.tiny import save_tiny


class OnePerCall(PRXPixelPipeline):
    """The pipeline, which guides only one picture at a time, for several; its "pt" pictures are in 0..1."""

    def __call__(self, prompt: list[str], negative_prompt: list[str], generator: list[Any], **options: Any) -> Any:
        made = [
            super(OnePerCall, self).__call__(one, negative_prompt=no, generator=rng, **options).images
            for one, no, rng in zip(prompt, negative_prompt, generator, strict=True)
        ]
        images = torch.cat(made)
        return SimpleNamespace(images=images if options["output_type"] == "latent" else (images / 2 + 0.5).clamp(0, 1))


def latents(pipeline: Any, pixels: Tensor, height: int, width: int) -> Tensor:
    """Pixels in units of the noise."""
    return pixels / pipeline.config.noise_scale


def encode_image(pipeline: Any, pixels: Tensor) -> Tensor:
    """There is no VAE."""
    return pixels / pipeline.config.noise_scale


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, Any]:
    """The language model's hidden states, without padding."""
    text, mask, _, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False)
    return {"text": [row[keep] for row, keep in zip(text, mask, strict=True)]}


def load_pipeline(folder: Path) -> Any:
    """The pipeline; ftfy, which repairs wrongly decoded texts, is not needed for these."""
    pipeline_prx_pixel.ftfy = SimpleNamespace(fix_text=str)
    return OnePerCall.from_pretrained(folder)


def load_lora(pipeline: Any, files: Sequence[Path]) -> None:
    """The file by peft: diffusers has no loader for this transformer."""
    (file,) = files
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    layers = sorted({name.rsplit(".lora_", 1)[0] for name in tensors})
    rank = next(tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), pipeline.transformer)
    result = set_peft_model_state_dict(pipeline.transformer, tensors)
    assert not result.unexpected_keys


CASES: dict[str, Case] = {
    "prx-pixel": Case(
        "prx_pixel",
        save_tiny,
        latents=latents,
        encode_image=encode_image,
        encode_prompt=encode_prompt,
        call={"use_resolution_binning": False},
        guidance=4.0,
        sizes=(32, 24),
        load_pipeline=load_pipeline,
        load_lora=load_lora,
    )
}
