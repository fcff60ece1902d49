"""A folder of pictures or videos becomes records: sizes by header reads, captions from files beside them."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from toolkit.config.sections.dataset import ANIMATION_ENDINGS, CACHE_FOLDERS, IMAGE_ENDINGS, VIDEO_ENDINGS
from toolkit.data.bucket import Size
from toolkit.data.frames import Clip
from toolkit.data.image import BrokenImage, read_size

MOVING = ANIMATION_ENDINGS | VIDEO_ENDINGS
# files that a user may believe to be part of the data set
UNREAD = MOVING | {".heic", ".heif", ".jfif", ".jp2", ".jxl", ".tif", ".tiff"}
FROM_FILE_NAME = "filename"


@dataclass(frozen=True)
class Record:
    """One picture or video of a data set."""

    path: Path
    name: str
    """Path below the data set's folder, with forward slashes."""
    width: int
    height: int
    """Sizes as seen, that is after EXIF orientation."""
    caption: str | None = None
    clip: Clip | None = None
    """The length of a video; None for a still picture."""

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


def scan(
    folder: Path | str,
    caption_ext: str = ".txt",
    strict: bool = False,
    num_workers: int = 8,
    *,
    videos: bool = False,
    without: Sequence[Path] = (),
) -> Scan:
    """Read the headers of all pictures below `folder`, but not below `without`; records come sorted by name.

    With `videos`, videos and animated pictures are read as such. `caption_ext` names the caption beside a picture (its
    dot is optional); `filename` makes the picture's own name the caption. A file that cannot be read is left out and
    named in `problems`; with `strict`, all of them are an error.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    paths = sorted(visible_files(folder, without), key=lambda path: path.relative_to(folder).as_posix())
    endings = IMAGE_ENDINGS | MOVING if videos else IMAGE_ENDINGS
    wanted = [path for path in paths if path.suffix.lower() in endings]
    kind = "image or video" if videos else "image"
    unread = _unread(paths, endings)
    if not wanted:
        raise ValueError(f"{folder}: no {kind} found ({', '.join(sorted(endings))}){unread}")
    with ThreadPoolExecutor(num_workers) as pool:
        found = list(pool.map(lambda path: _read(folder, path, caption_ext, videos), wanted))
    broken = [str(result) for result in found if isinstance(result, BrokenImage)]
    if strict and broken:
        raise ValueError("; ".join(broken))
    read = [result for result in found if not isinstance(result, BrokenImage)]
    if not read:
        raise ValueError("; ".join([f"{folder}: none of its {len(broken)} {kind}s can be read", *broken]))
    records = [record for record, _ in read]
    problems = [f"{line}; left out" for line in broken] + [problem for _, problem in read if problem]
    return Scan(records, problems + _summary(folder, records, unread))


def visible_files(folder: Path, without: Sequence[Path] = ()) -> Iterator[Path]:
    """All visible files below a folder, but not below `without`; linked folders are followed once."""
    # a data set may be its own folder of references
    seen = {os.path.realpath(path) for path in without} - {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".") and name not in CACHE_FOLDERS]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _read(folder: Path, path: Path, caption_ext: str, videos: bool) -> tuple[Record, str] | BrokenImage:
    """A record and what is wrong with its caption ("" if nothing)."""
    try:
        (width, height), clip = _size(path, videos)
    except BrokenImage as error:
        return error
    caption, problem = _caption(path, caption_ext)
    return Record(path, path.relative_to(folder).as_posix(), width, height, caption, clip), problem


def _size(path: Path, videos: bool) -> tuple[Size, Clip | None]:
    # a data set of pictures needs no video decoder
    if videos:
        from toolkit.data.video import read_clip

        if found := read_clip(path):
            return found
    return read_size(path), None


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


def _summary(folder: Path, records: list[Record], unread: str) -> list[str]:
    """What is said once per folder."""
    bare = [record.name for record in records if record.caption is None]
    kind = "images and videos" if any(record.clip for record in records) else "images"
    lines = [f"{folder}: {len(bare)} of {len(records)} {kind} have no caption (first: {bare[0]})"] if bare else []
    return [*lines, f"{folder}: left out{unread}"] if unread else lines


def _unread(paths: list[Path], endings: Set[str]) -> str:
    """Counts of files that look like media but are not read, e.g. `; not read: 3 .heic`."""
    counts = Counter(suffix for path in paths if (suffix := path.suffix.lower()) in UNREAD - endings)
    hint = " (videos need num_frames)" if counts.keys() & VIDEO_ENDINGS else ""
    return f"; not read: {', '.join(f'{count} {ext}' for ext, count in sorted(counts.items()))}{hint}" if counts else ""
