"""A folder of pictures becomes records: sizes by header reads, captions from files beside the pictures."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from toolkit.config.sections.dataset import CACHE_FOLDERS, IMAGE_ENDINGS
from toolkit.data.image import BrokenImage, read_size

# pictures and films that a user may believe to be part of the data set
UNREAD = frozenset(
    {".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".tif", ".tiff", ".mp4", ".mov", ".webm", ".mkv"}
)
FROM_FILE_NAME = "filename"


@dataclass(frozen=True)
class Record:
    """One picture of a data set."""

    path: Path
    name: str
    """Path below the data set's folder, with forward slashes."""
    width: int
    height: int
    """Sizes as seen, that is after EXIF orientation."""
    caption: str | None = None

    @cached_property
    def sha(self) -> str:
        """Hash of the file's content, read when first asked for."""
        digest = hashlib.blake2b(digest_size=20)
        with open(self.path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class Scan:
    """What a folder holds, and everything that is wrong with it."""

    records: list[Record]
    problems: list[str]


def scan(folder: Path | str, caption_ext: str = ".txt", strict: bool = False, num_workers: int = 8) -> Scan:
    """Read the headers of all pictures below `folder`; records come sorted by name.

    `caption_ext` names the caption beside a picture (its dot is optional); `filename` makes the picture's own name the
    caption. A picture that cannot be read is left out and named in `problems`; with `strict`, all of them are an error.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    paths = sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix())
    pictures = [path for path in paths if path.suffix.lower() in IMAGE_ENDINGS]
    if not pictures:
        raise ValueError(f"{folder}: no image found ({', '.join(sorted(IMAGE_ENDINGS))}){_unread(paths)}")
    with ThreadPoolExecutor(num_workers) as pool:
        found = list(pool.map(lambda path: _read(folder, path, caption_ext), pictures))
    broken = [str(result) for result in found if isinstance(result, BrokenImage)]
    if strict and broken:
        raise ValueError("; ".join(broken))
    read = [result for result in found if not isinstance(result, BrokenImage)]
    if not read:
        raise ValueError("; ".join([f"{folder}: none of its {len(broken)} images can be read", *broken]))
    records = [record for record, _ in read]
    problems = [f"{line}; left out" for line in broken] + [problem for _, problem in read if problem]
    return Scan(records, problems + _summary(folder, records, paths))


def _files(folder: Path) -> Iterator[Path]:
    """All visible files below a folder; linked folders are followed once."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".") and name not in CACHE_FOLDERS]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _read(folder: Path, path: Path, caption_ext: str) -> tuple[Record, str] | BrokenImage:
    """A record and what is wrong with its caption ("" if nothing)."""
    try:
        width, height = read_size(path)
    except BrokenImage as error:
        return error
    caption, problem = _caption(path, caption_ext)
    return Record(path, path.relative_to(folder).as_posix(), width, height, caption), problem


def _caption(path: Path, caption_ext: str) -> tuple[str | None, str]:
    """The caption of a picture and what is wrong with it."""
    if caption_ext == FROM_FILE_NAME:
        return path.stem.replace("_", " ").strip() or None, ""
    sidecar = path.with_name(f"{path.stem}.{caption_ext.lstrip('.')}")
    try:
        return sidecar.read_text(encoding="utf-8-sig").strip() or None, ""
    except FileNotFoundError:
        return None, ""
    except UnicodeDecodeError as error:
        return None, f"{sidecar}: not UTF-8 (byte {error.start}); the image counts as having no caption"
    except OSError as error:
        return None, f"{sidecar}: {error.strerror or error}; the image counts as having no caption"


def _summary(folder: Path, records: list[Record], paths: list[Path]) -> list[str]:
    """What is said once per folder."""
    bare = [record.name for record in records if record.caption is None]
    lines = [f"{folder}: {len(bare)} of {len(records)} images have no caption (first: {bare[0]})"] if bare else []
    unread = _unread(paths)
    return [*lines, f"{folder}: left out{unread}"] if unread else lines


def _unread(paths: list[Path]) -> str:
    """Counts of files that look like media but are not read, e.g. `; not read: 3 .heic`."""
    counts = Counter(path.suffix.lower() for path in paths if path.suffix.lower() in UNREAD)
    return f"; not read: {', '.join(f'{count} {ext}' for ext, count in sorted(counts.items()))}" if counts else ""
