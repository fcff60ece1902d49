"""A copy of a data set in which every picture can be read as it looks: `aitk dataset repair`. Originals stay."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from toolkit.atomic import atomic_path
from toolkit.config.sections.dataset import CACHE_FOLDERS, IMAGE_ENDINGS, VIDEO_ENDINGS
from toolkit.data.pictures.image import BAD_FILE, ENDINGS, FORMATS, ORIENTATION, TURNS, format_of, reason_of, to_rgb

OTHER_FILES = VIDEO_ENDINGS | {
    ".txt",
    ".caption",
    ".json",
    ".jsonl",
    ".csv",
    ".parquet",
    ".tar",
    ".md",
    ".yaml",
    ".yml",
}
MOST_MISSING = 0.5
"""A picture of which a larger share is missing is not worth repairing."""


@dataclass(frozen=True)
class Repaired:
    """A picture that was written anew."""

    name: str
    new_name: str
    faults: tuple[str, ...]


@dataclass
class Report:
    """What became of a folder."""

    repaired: list[Repaired] = field(default_factory=list)
    num_copied: int = 0
    num_captions: int = 0
    num_there: int = 0
    """Pictures that were in the new folder already."""
    lost: list[str] = field(default_factory=list)
    """What is beyond repair, and why."""


@dataclass(frozen=True)
class Examined:
    """A picture as it looks, and what is wrong with its file."""

    image: Image.Image
    kind: str
    """Its format, by content."""
    profile: bytes | None
    faults: tuple[str, ...]


def repair(
    folder: Path,
    out: Path,
    *,
    caption_ext: str = ".txt",
    kind: str = "auto",
    quality: int = 95,
    only_repaired: bool = False,
) -> Iterator[Report]:
    """Copy pictures and captions to `out`, faulty ones written anew; yields the growing report after every file.

    `kind`: "png", "jpeg", or "auto", where JPEGs stay JPEGs and all else becomes PNG; transparent pictures are PNGs in
    any case. Files that are in `out` already stay, so a run that was cut short goes on.
    """
    check_places(folder, out)
    report, taken = Report(), set[Path]()
    for path in _files(folder):
        _repair_one(path, folder, out, report, taken, (caption_ext, kind, quality, only_repaired))
        yield report


def check_places(folder: Path, out: Path) -> None:
    """Raise ValueError if one of the folders cannot be what it is for."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    inside, outside = Path(os.path.realpath(out)), Path(os.path.realpath(folder))
    if inside == outside or outside in inside.parents:
        raise ValueError(f"{out} is in the data set itself; name a folder outside of {folder}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, not a folder")


def examine(path: Path) -> Examined:
    """The picture of a file. Raises ValueError with the reason if it is beyond repair."""
    try:
        image, kind, faults = _load(path)
    except BAD_FILE as error:
        raise ValueError(reason_of(path, error)) from error
    orientation = _orientation(image)
    if orientation in TURNS:
        faults.append("turned by EXIF")
        image = _like(image.transpose(TURNS[orientation]), image)
    profile = image.info.get("icc_profile")
    if image.mode in ("CMYK", "I", "F") or image.mode.startswith("I;"):
        faults.append("CMYK" if image.mode == "CMYK" else "16 bit" if image.mode.startswith("I") else image.mode)
        profile = None if image.mode == "CMYK" else profile
    try:
        flat = image.convert("RGBA") if image.has_transparency_data else to_rgb(image, (255, 255, 255))
    except BAD_FILE as error:
        raise ValueError(reason_of(path, error)) from error
    # a profile for gray or CMYK says nothing about the RGB that is written
    fits = isinstance(profile, bytes) and profile[16:20] == b"RGB "
    if "cut short" in faults:
        missing = _missing_share(flat)
        if missing > MOST_MISSING:
            raise ValueError(f"cut short: {missing:.0%} of it is missing")
        faults[faults.index("cut short")] = f"cut short ({missing:.0%} missing)"
    return Examined(flat, kind, profile if fits else None, tuple(faults))


def _load(path: Path) -> tuple[Image.Image, str, list[str]]:
    """The first frame in memory, the format, and the faults of the file around it."""
    faults: list[str] = []
    if path.exists() and not path.is_file():
        # reading a named pipe would wait for somebody to write into it
        raise ValueError("not a regular file")
    data = path.read_bytes()
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        kind = format_of(image)
        if path.suffix.lower() not in ENDINGS[kind]:
            faults.append(f"{kind} by content" if path.suffix else f"{kind} without ending")
        if kind in ("GIF", "WEBP", "PNG", "AVIF") and getattr(image, "n_frames", 1) > 1:
            faults.append("animated")
        try:
            image.load()
            return image.copy(), kind, faults
        except (OSError, SyntaxError, ValueError):
            faults.append("cut short")
    with _lenient(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()
        return image.copy(), kind, faults


@contextmanager
def _lenient() -> Iterator[None]:
    """Inside the block Pillow fills in what a file lacks; a switch of the whole process, so only for one thread."""
    kept = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = kept


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except BAD_FILE:
        return 1


def _like(turned: Image.Image, image: Image.Image) -> Image.Image:
    turned.info = dict(image.info)
    return turned


def _missing_share(image: Image.Image) -> float:
    """Which share of the rows, from below, is filled with one color."""
    rows = np.asarray(image)
    same = (rows == rows[-1, -1]).all(axis=(1, 2))[::-1]
    return float(same.argmin() if not same.all() else len(same)) / len(same)


def _repair_one(
    path: Path, folder: Path, out: Path, report: Report, taken: set[Path], options: tuple[str, str, int, bool]
) -> None:
    caption_ext, kind, quality, only_repaired = options
    name = path.relative_to(folder).as_posix()
    try:
        found = examine(path)
    except (ValueError, OSError) as error:
        # a file that does not claim to be a picture is none
        if path.suffix.lower() in IMAGE_ENDINGS:
            report.lost.append(f"{name}: {error}")
        return
    if not found.faults and only_repaired:
        return
    ending = _ending(found, kind) if found.faults else path.suffix
    target = _free(out / path.relative_to(folder).with_suffix(ending), taken, path)
    taken.add(target)
    if target.exists():
        report.num_there += 1
    elif found.faults:
        _write(found, target, quality)
        report.repaired.append(Repaired(name, target.relative_to(out).as_posix(), found.faults))
    else:
        _copy(path, target)
        report.num_copied += 1
    caption = path.with_name(f"{path.stem}.{caption_ext.lstrip('.')}")
    new = target.with_name(f"{target.stem}.{caption_ext.lstrip('.')}")
    if caption.is_file() and not new.exists():
        _copy(caption, new)
        report.num_captions += 1


def _ending(found: Examined, kind: str) -> str:
    if found.image.mode == "RGBA" or kind == "png" or (kind == "auto" and found.kind != "JPEG"):
        return ".png"
    return ".jpg"


def _free(target: Path, taken: set[Path], source: Path) -> Path:
    """The name, or where another picture of this run has it, one with the old ending in it: `a_jpg.png`."""
    number = 1
    free = target
    while free in taken:
        tail = source.suffix.lower().lstrip(".") or "file"
        free = target.with_name(f"{target.stem}_{tail}{number if number > 1 else ''}{target.suffix}")
        number += 1
    return free


def _write(found: Examined, target: Path, quality: int) -> None:
    with atomic_path(target) as temporary:
        if target.suffix == ".png":
            found.image.save(temporary, "PNG", icc_profile=found.profile)
        else:
            found.image.save(temporary, "JPEG", quality=quality, subsampling=0, icc_profile=found.profile)


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _files(folder: Path) -> Iterator[Path]:
    """What may be a picture, sorted; hidden files, caches and what is known to be something else are left out."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in CACHE_FOLDERS)
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() not in OTHER_FILES:
                yield Path(parent, name)
