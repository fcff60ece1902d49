"""How a family's layers are called in other programs' files. Light: a family's config module holds one of these.

Patterns are whole dotted parts of a layer's name in diffusers; `*` stands for one number. See docs/formats.md.
"""

from __future__ import annotations

from dataclasses import dataclass

FORMATS = ("diffusers", "kohya", "comfyui", "original")
"""What `save.key_format` and `aitk lora convert --to` can name."""


@dataclass(frozen=True)
class Fused:
    """Layers of diffusers that are one layer in the original release, one above the other."""

    original: str
    """Pattern of the one layer; its stars stand for the same numbers as those of the parts."""
    parts: tuple[str, ...]
    """Patterns of the layers, in the order of their rows."""
    rows: tuple[int, ...]
    """Rows of each part as a multiple of the columns; 0: an equal share of what the others leave."""


@dataclass(frozen=True)
class KeyNames:
    """The names of one family in each key format."""

    default: str = "diffusers"
    """The key format of saved files unless `save.key_format` says otherwise."""
    original: tuple[tuple[str, str], ...] = ()
    """Pairs (pattern, the same in the original release), the longer ones first, as each is applied to what the ones
    before have made. Empty: the names are the same."""
    fused: tuple[Fused, ...] = ()
    """Looked up before `original`, which then renames the rest of the name."""
    swapped: tuple[str, ...] = ()
    """Ends of original names of layers that make (scale, shift) where diffusers makes (shift, scale); such a layer has
    twice as many rows as columns."""
    upsamplers: tuple[int, ...] = ()
    """For a U-Net whose original blocks are numbered: place of the upsampler in the last part of each up block."""
    kohya: str = "original"
    """Whether kohya's underscored names are made of "original" or "diffusers" names."""
    comfyui: str = "original"
    """Whether `diffusion_model.` stands before "original" or "diffusers" names."""
    split: bool = False
    """Whether ComfyUI reads the parts of fused layers too: after `transformer.`, or underscored after `lycoris_`."""
    text_encoders: tuple[str, ...] = ("lora_te1", "lora_te2")
    """What kohya writes before the names of each text encoder's layers."""
    layers: tuple[str, ...] = ()
    """Patterns of all layers that a file may name; {a,b} stands for one of several. Needed to convert files."""
    versions: tuple[str, ...] = ()
    """Values of `ss_base_model_version` and `modelspec.architecture` that tell the family of a file."""
