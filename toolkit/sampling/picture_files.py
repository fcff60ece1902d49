"""Sampled pictures as files: their names, and in each the prompt, seed and step it was made with."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from toolkit.atomic import atomic_path
from toolkit.data.pictures.image import BAD_FILE

_NAME = re.compile(r"(?P<time>\d+)__(?P<step>\d{9,})_(?P<index>\d+)\.(?:jpg|jpeg|png|webp)", re.IGNORECASE)
_FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
_EXIF_IFD = 0x8769
_USER_COMMENT = 0x9286
_IMAGE_DESCRIPTION = 0x010E
_A1111_NAMES = {
    "steps": "Steps",
    "sampler": "Sampler",
    "guidance": "CFG scale",
    "seed": "Seed",
    "size": "Size",
    "model": "Model",
}


@dataclass(frozen=True)
class PictureFile:
    """A sampled picture by its name; without knowing what is in it."""

    path: Path
    time_ms: int
    step: int
    index: int


def save_picture(
    image: Image.Image, folder: Path, step: int, index: int, count: int, ext: str, metadata: Mapping[str, Any]
) -> Path:
    """Write number `index` of the `count` pictures of a step, with `metadata` such as prompt and seed inside."""
    facts = {**metadata, "step": step, "index": index}
    return write_picture(image, _place(folder, step, index, count, ext, facts), facts)


def save_animation(
    frames: Sequence[Image.Image],
    fps: int,
    folder: Path,
    step: int,
    index: int,
    count: int,
    metadata: Mapping[str, Any],
) -> Path:
    """Write a video as an animated webp, which browsers and picture viewers show, named like a picture."""
    facts = {**metadata, "step": step, "index": index}
    return write_animation(frames, fps, _place(folder, step, index, count, "webp", facts), facts)


def write_picture(image: Image.Image, path: Path, facts: Mapping[str, Any]) -> Path:
    """Write a PNG, JPEG or WebP, by the ending of `path`, that says in itself what it was made with."""
    kind = _FORMATS[path.suffix.lower().lstrip(".")]
    with atomic_path(path) as temporary:
        if kind == "PNG":
            image.save(temporary, kind, pnginfo=_png_info(facts))
        elif kind == "JPEG":
            image.convert("RGB").save(temporary, kind, quality=95, subsampling=0, exif=_exif(facts))
        else:
            image.save(temporary, kind, quality=95, exif=_exif(facts))
    return path


def write_animation(frames: Sequence[Image.Image], fps: int, path: Path, facts: Mapping[str, Any]) -> Path:
    """Write a video as an animated webp that says in itself what it was made with."""
    with atomic_path(path) as temporary:
        frames[0].save(
            temporary,
            "WEBP",
            save_all=True,
            append_images=frames[1:],
            duration=round(1000 / fps),
            loop=0,
            quality=95,
            exif=_exif(facts),
        )
    return path


def _place(folder: Path, step: int, index: int, count: int, ext: str, facts: Mapping[str, Any]) -> Path:
    """The file of a sample, by a name that ai-toolkit's tools look for.

    One that is made again, as after a kill, takes the place of the earlier one; made otherwise, it stands beside it,
    and is the later one by its name even if the clock went back.
    """
    extension = ext.lower().lstrip(".")
    before = next((found for found in list_pictures(folder) if (found.step, found.index) == (step, index)), None)
    if before and before.path.suffix == f".{extension}" and is_of(before.path, facts):
        return before.path
    time_ms = max(time.time_ns() // 1_000_000, before.time_ms + 1 if before else 0)
    return folder / f"{time_ms}__{step:09d}_{index:0{len(str(count))}d}.{extension}"


def is_of(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a picture was made with these settings, among them `step` and `index`."""
    try:
        return read_metadata(path) == json.loads(json.dumps(facts))
    except BAD_FILE:
        return False


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what `write_picture` put into a file; empty for a picture of another program."""
    with Image.open(path) as image:
        text = image.info.get("aitk") or image.getexif().get(_IMAGE_DESCRIPTION)
    try:
        facts = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def list_pictures(folder: Path) -> list[PictureFile]:
    """Return the sampled pictures in a folder by step and index; of one made twice, the later file."""
    newest: dict[tuple[int, int], PictureFile] = {}
    for path in folder.iterdir() if folder.is_dir() else []:
        match = _NAME.fullmatch(path.name)
        if match:
            picture = PictureFile(path, int(match["time"]), int(match["step"]), int(match["index"]))
            known = newest.get((picture.step, picture.index))
            if known is None or known.time_ms < picture.time_ms:
                newest[picture.step, picture.index] = picture
    return [newest[key] for key in sorted(newest)]


def a1111_text(facts: Mapping[str, Any]) -> str:
    """Write the text that AUTOMATIC1111, ComfyUI and viewers of model sites read from a picture."""
    named = dict(facts)
    if "width" in facts and "height" in facts:
        named["size"] = f"{facts['width']}x{facts['height']}"
    lines = [str(facts.get("prompt", ""))]
    if facts.get("negative"):
        lines.append(f"Negative prompt: {facts['negative']}")
    lines.append(", ".join(f"{label}: {named[key]}" for key, label in _A1111_NAMES.items() if key in named))
    return "\n".join(lines)


def _png_info(facts: Mapping[str, Any]) -> PngInfo:
    """Return text chunks; Pillow chooses iTXt for what is not Latin-1, as some prompts are."""
    info = PngInfo()
    info.add_text("parameters", a1111_text(facts))
    info.add_text("aitk", json.dumps(facts))
    return info


def _exif(facts: Mapping[str, Any]) -> Image.Exif:
    """Return EXIF with the readable text in UserComment, where others look, and ours in ImageDescription."""
    exif = Image.Exif()
    exif[_IMAGE_DESCRIPTION] = json.dumps(facts)
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"UNICODE\0" + a1111_text(facts).encode("utf-16-be")
    return exif
