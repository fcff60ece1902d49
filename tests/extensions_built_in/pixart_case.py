"""PixArt for the contract test: what its pipelines do around the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from family_pipelines import kl_latents, trimmed
from family_subject import Case
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from extensions_built_in.pixart.tiny import save_tiny
from toolkit.assets.tiny_text import TEXT_LENGTH


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, list[Tensor]]:
    """T5's hidden states without padding."""
    text, mask, _, _ = pipeline.encode_prompt(texts, False, max_sequence_length=TEXT_LENGTH)
    return {"text": trimmed(text, mask)}


def load_lora(pipeline: Any, files: Sequence[Path]) -> None:
    """By peft, because diffusers has no loader for this pipeline."""
    (file,) = files
    weights = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    targets = sorted({name.split(".lora_")[0] for name in weights})
    rank = next(tensor.shape[0] for name, tensor in weights.items() if "lora_A" in name)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    inject_adapter_in_model(config, pipeline.transformer)
    found = set_peft_model_state_dict(pipeline.transformer, weights)
    assert not found.unexpected_keys


pixart = partial(
    Case,
    encode_image=kl_latents,
    encode_prompt=encode_prompt,
    guidance=4.5,
    call={"max_sequence_length": TEXT_LENGTH, "use_resolution_binning": False, "clean_caption": False},
    load_lora=load_lora,
    sizes=(32, 24),
    # the noisiest step holds 1/157 of the data, by which rounding grows when the scheduler asks for the clean picture
    tolerances={"oracle": 1e-4},
)

CASES: dict[str, Case] = {
    "pixart-sigma": pixart("pixart_sigma", save_tiny),
    "pixart-alpha": pixart("pixart", partial(save_tiny, is_alpha=True)),
}
