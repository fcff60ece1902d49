"""The reference and control pictures of sample prompts, as the families take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageOps

from toolkit.data.bucket import crop_for
from toolkit.data.pictures.image import fit, open_image, read_size
from toolkit.data.pictures.references import References
from toolkit.data.records import Record
from toolkit.models.family import Facts
from toolkit.sampling.prompts import SamplePrompt

BLACK = (0, 0, 0)
"""Seen through transparent parts of references, as in training."""


def check_references(
    prompts: Sequence[SamplePrompt], facts: Facts, notice: Callable[[str], None]
) -> list[SamplePrompt]:
    """The prompts with the pictures that the model can use. ValueError for one that is missing or cannot be read."""
    return [_check(prompt, facts, notice) for prompt in prompts]


def open_references(prompt: SamplePrompt, facts: Facts) -> list[Image.Image]:
    """The pictures of a prompt: at their own size, or where the model lays them over the sample, cropped to its."""
    paths = [Path(path).expanduser() for path in prompt.images]
    if facts.references == "tokens":
        return [open_image(path, BLACK) for path in paths]
    size = prompt.width, prompt.height
    images = [_with_holes(path) or open_image(path, BLACK) for path in paths]
    return [Image.fromarray(fit(image, size, crop_for(*image.size, size))) for image in images]


def listed_references(prompt: SamplePrompt) -> References:
    """The pictures of a prompt as the text encoders get them, at their own size."""
    paths = [Path(path).expanduser() for path in prompt.images]
    return References(tuple(Record(path, path.name, *read_size(path)) for path in paths), background=BLACK)


def _with_holes(path: Path) -> Image.Image | None:
    """The picture with its alpha channel, if it has one: models that paint in see there what is missing."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image.convert("RGBA")) if image.has_transparency_data else None


def _check(prompt: SamplePrompt, facts: Facts, notice: Callable[[str], None]) -> SamplePrompt:
    where = f"sample prompt {prompt.index + 1}"
    if prompt.images and facts.references == "none":
        notice(f"{where}: ctrl_img has no effect, this model takes no pictures")
        return replace(prompt, images=())
    if not prompt.images and facts.needs_references:
        raise ValueError(f"{where}: this model makes pictures from a picture; add ctrl_img (or --ctrl_img FILE)")
    for path in prompt.images:
        _check_file(path, where)
    return prompt


def _check_file(path: str, where: str) -> None:
    try:
        read_size(Path(path).expanduser())
    except ValueError as error:
        raise ValueError(f"{where}: ctrl_img {error}") from error
