"""Which family a checkpoint belongs to, from the files that are here: no torch, no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.networks.keys.summary import read_header
from toolkit.registry import ROOT, get_registry

PIPELINES = {
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
    "FluxKontextPipeline": "flux_kontext",
    "FluxControlPipeline": "flux_control",
    "FluxFillPipeline": "flux_fill",
    "ChromaPipeline": "chroma",
    "Lumina2Pipeline": "lumina2",
    "ZImagePipeline": "zimage",
    "QwenImagePipeline": "qwen_image",
    "QwenImageEditPipeline": "qwen_image_edit",
    "QwenImageEditPlusPipeline": "qwen_image_edit_plus",
    "PixArtAlphaPipeline": "pixart",
    "PixArtSigmaPipeline": "pixart_sigma",
    "AuraFlowPipeline": "auraflow",
    "SanaPipeline": "sana",
    "CogView4Pipeline": "cogview4",
    "HiDreamImagePipeline": "hidream",
}
"""`_class_name` of a model_index.json -> arch."""
SIGNS = (
    ("label_emb.0.0.weight", "sdxl"),
    ("add_embedding.linear_1.weight", "sdxl"),
    ("distilled_guidance_layer.", "chroma"),
    ("single_blocks.0.linear1.weight", "flux"),
    ("single_transformer_blocks.0.proj_mlp.weight", "flux"),
)
"""(part of a tensor's name, arch), the first one that is found counts."""
WIDTHS = {768: "sd1", 1024: "sd2"}
"""Width of the text that a U-Net attends to -> arch."""


def guess_arch(name: str) -> str | None:
    """The arch of a checkpoint by its contents, or of a Hub name that is a family's example; None: not told."""
    place = ROOT / "toolkit/assets" / name.removeprefix("builtin:") if name.startswith("builtin:") else Path(name)
    place = place.expanduser()
    if place.is_dir():
        return _of_folder(place)
    return _of_file(place) if place.is_file() else _of_example(name)


def _of_folder(folder: Path) -> str | None:
    index = _read(folder / "model_index.json").get("_class_name", "")
    if index == "StableDiffusionPipeline":
        return WIDTHS.get(_read(folder / "unet/config.json").get("cross_attention_dim", 0))
    return PIPELINES.get(index)


def _of_file(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            tensors: Mapping[str, Any] = read_header(opened, file)[0]
    except ValueError:
        return None
    for sign, arch in SIGNS:
        if any(sign in name for name in tensors):
            return arch
    seen = next((entry["shape"] for name, entry in tensors.items() if name.endswith("attn2.to_k.weight")), [0, 0])
    return WIDTHS.get(seen[-1])


def _of_example(name: str) -> str | None:
    registry = get_registry()
    for arch in registry.entries("models"):
        try:
            if registry.load("models", arch).example == name:
                return arch
        except (ValueError, AttributeError):
            continue
    return None


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
