"""What tells the checkpoints apart that share FLUX.1's network: the pictures that they see beside the noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image
from torch import Tensor

from extensions_built_in.flux.pictures import (
    Encode,
    Size,
    empty_flex2,
    encode_control,
    encode_fill,
    encode_flex2,
    encode_references,
)
from toolkit.models.conditions import Row


def no_pictures(encode: Encode, images: Sequence[Image.Image], target: Size, cell: int) -> Row:
    """Text alone."""
    return {}


@dataclass(frozen=True)
class Variant:
    """One of them."""

    pipeline: str = "FluxPipeline"
    """Name of the diffusers pipeline."""
    base_model: str = "flux.1"
    """`ss_base_model_version` in the header of saved files."""
    cells: int = 4
    """Pixel sizes of training images are multiples of so many latent cells."""
    references: str = "none"
    """As in Facts."""
    needs_references: bool = False
    encode: Callable[[Encode, Sequence[Image.Image], Size, int], Row] = no_pictures
    """(encode_image, pictures, height and width of the target in pixels, pixels per latent cell) -> conditions."""
    without: Callable[[Tensor], Tensor] | None = None
    """Noisy latents -> the `control` of samples that have no pictures."""


FLUX = Variant()
# the pipeline of Flex.2 is part of its repository; FluxPipeline reads its LoRAs
FLEX2 = Variant(base_model="flex.2", cells=2, references="channels", encode=encode_flex2, without=empty_flex2)
CONTROL = Variant(
    "FluxControlPipeline",
    "flux.1_control",
    cells=2,
    references="channels",
    needs_references=True,
    encode=encode_control,
)
FILL = Variant(
    "FluxFillPipeline",
    "flux.1_fill",
    cells=2,
    references="channels",
    needs_references=True,
    encode=encode_fill,
)


def kontext(max_pixels: int, match_target: bool) -> Variant:
    """FLUX.1 Kontext; references have at most `max_pixels`, or with `match_target` as many as the target."""
    encode = partial(encode_references, max_pixels=max_pixels, match_target=match_target)
    return Variant("FluxKontextPipeline", "flux.1_kontext", cells=2, references="tokens", encode=encode)
