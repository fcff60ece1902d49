"""A folder of pictures or videos becomes records: sizes by header reads, captions from files beside them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config.sections.dataset import ANIMATION_ENDINGS, CACHE_FOLDERS, IMAGE_ENDINGS, VIDEO_ENDINGS
from toolkit.data.bucket import Size
from toolkit.data.frames import Clip
from toolkit.data.pictures.image import BrokenImage, read_header
from toolkit.data.records import Records
from toolkit.data.scanning.headers import quick_size
from toolkit.data.scanning.index import UNSURE, Index, changed, index_path, load, renew, save
from toolkit.data.scanning.indexed import Contents, IndexedRecords
from toolkit.data.scanning.memory import give_back
from toolkit.data.scanning.walk import Kinds, listed, walk

MOVING = ANIMATION_ENDINGS | VIDEO_ENDINGS
# files that a user may believe to be part of the data set
UNREAD = MOVING | {".heic", ".heif", ".jfif", ".jp2", ".jxl", ".tif", ".tiff"}
FROM_FILE_NAME = "filename"
BARE = " have no caption (first: "
"""In the line about pictures without a caption."""
MOVES = "moves"
"""Said of a picture that more frames follow in."""
BLANK: dict[str, Any] = {"caption": None, "caption_problem": None}


@dataclass(frozen=True)
class Scan:
    """What a folder holds, and everything that is wrong with it."""

    records: Records
    problems: list[str]


def scan(
    folder: Path | str,
    caption_ext: str = ".txt",
    strict: bool = False,
    num_workers: int = 8,
    *,
    videos: bool = False,
    without: Sequence[Path] = (),
    index: Path | None = None,
) -> Scan:
    """Read the headers of all pictures below `folder`, but not below `without`; records come sorted by name.

    With `videos`, videos and animated pictures are read as such. `caption_ext` names the caption beside a picture (its
    dot is optional); `filename` makes the picture's own name the caption. A file that cannot be read is left out and
    named in `problems`; with `strict`, all of them are an error.

    `index` is a folder that keeps what was read, so that the next scan reads only files whose size or time changed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    endings = IMAGE_ENDINGS | MOVING if videos else IMAGE_ENDINGS
    caption_ending = "" if caption_ext == FROM_FILE_NAME else f".{caption_ext.lstrip('.')}"
    found = walk(folder, Kinds(endings, caption_ending, UNREAD - endings, CACHE_FOLDERS), without, num_workers)
    kind = "image or video" if videos else "image"
    unread = _unread(found.counted)
    if not len(found.names):
        lines = [f"{folder}: no {kind} found ({', '.join(sorted(endings))}){unread}", *found.problems]
        raise ValueError("; ".join(lines))
    notices: list[str] = []
    options = [caption_ext, videos, sorted(endings), sorted(os.path.realpath(path) for path in without)]
    path = None if index is None else index_path(index, folder, options)
    old = load(path, notices) if path else None
    picture, caption = partial(_picture, folder, videos), partial(_caption, folder, caption_ending)
    renewed = renew(old, found, picture, caption, _readers(videos), folder, num_workers)
    contents = Contents(renewed, path)
    if path and renewed is old:
        # `aitk cache prune` goes by the time of the last use
        with suppress(OSError):
            os.utime(path)
    if old is not None and (names := changed(old, renewed)):
        count = "1 file was" if len(names) == 1 else f"{len(names)} files were"
        notices.append(
            f"{folder}: {count} changed since the last start (first: {names[0]}); what changed is used as it is"
        )
    if path and renewed is not old:
        before = Contents(old, path) if old else None
        renewed = save(renewed, path, notices)
        contents = Contents(renewed, path)
        if before is not None and renewed.kept is not None:
            contents.carry(before, renewed.kept)
            contents.save()
    notices += found.problems
    del found
    scanned = _judged(folder, renewed, contents, caption_ending, kind, strict, notices, unread)
    give_back(len(renewed.table))
    return scanned


def visible_files(folder: Path, without: Sequence[Path] = ()) -> Iterator[Path]:
    """All visible files below a folder, but not below `without`; linked folders are followed once."""
    return listed(folder, Kinds(("",), skipped=CACHE_FOLDERS), without)


def _judged(
    folder: Path,
    index: Index,
    contents: Contents,
    caption_ending: str,
    kind: str,
    strict: bool,
    notices: list[str],
    unread: str,
) -> Scan:
    """The records of the files that can be read, and what is wrong with the others."""
    good = index.numbers("width") > 0
    said = _said(index, "problem")
    broken = [f"{folder / name}: {reason}" for name, reason in said if reason != MOVES]
    moving = [name for name, reason in said if reason == MOVES][:1]
    if strict and broken:
        raise ValueError("; ".join(broken))
    if not good.any():
        raise ValueError("; ".join([f"{folder}: none of its {len(broken)} {kind}s can be read", *broken]))
    records = IndexedRecords(folder, index, contents, None if good.all() else np.flatnonzero(good).astype(np.int32))
    problems = [*notices, *(f"{line}; left out" for line in broken)]
    for name, reason in _said(index, "caption_problem"):
        problems.append(f"{folder / _stem(name)}{caption_ending}: {reason}; the image counts as having no caption")
    return Scan(
        records,
        problems
        + _summary(records, index, good, unread)
        + [f"{folder}: only the first frame of animated pictures is trained (first: {name})" for name in moving],
    )


def _said(index: Index, column: str) -> list[tuple[str, str]]:
    """The names of the files that something is said about in a column, and what."""
    import pyarrow.compute as pc

    table = index.table.select(["name", column]).filter(pc.is_valid(index.table[column]))
    names, said = table["name"].to_pylist(), table[column].to_pylist()
    return [(os.fsdecode(name), reason) for name, reason in zip(names, said, strict=True)]


def _picture(folder: Path, videos: bool, name: str) -> dict[str, Any]:
    """The columns of a picture or video."""
    try:
        (width, height), clip, moves = header_of(os.path.join(folder, name), videos)
    except BrokenImage as error:
        # an error of the system may be gone the next time, one of the content is not
        cause = error.__cause__
        unsure = {"mtime_ns": UNSURE} if isinstance(cause, OSError) and cause.errno else {}
        return {"width": 0, "height": 0, "last_s": np.nan, "fps": np.nan, "problem": error.reason, **unsure}
    last_s, fps = (clip.last_s, clip.fps) if clip else (np.nan, np.nan)
    return {"width": width, "height": height, "last_s": last_s, "fps": fps, "problem": MOVES if moves else None}


def header_of(path: str, videos: bool) -> tuple[Size, Clip | None, bool]:
    """Size, length if it is a video, and whether frames are left out because it is not read as one.

    Raises BrokenImage.
    """
    if not os.path.isfile(path) and os.path.exists(path):
        # opening a named pipe would wait for somebody to write into it
        raise BrokenImage(path, "not a regular file")
    if size := quick_size(path):
        return size, None, False
    # a data set of pictures needs no video decoder
    if videos:
        from toolkit.data.pictures.video import read_clip

        if found := read_clip(Path(path)):
            return *found, False
    size, moves = read_header(path)
    return size, None, moves


def _caption(folder: Path, ending: str, name: str) -> dict[str, Any]:
    """The columns of a picture's caption."""
    if not ending:
        text = os.fsencode(Path(name).stem.replace("_", " ").strip())
        try:
            text.decode()
        except UnicodeDecodeError:
            return {**BLANK, "caption_problem": "its name is not UTF-8"}
        return {**BLANK, "caption": text or None}
    try:
        # no Path, because there may be a million of them
        with open(os.path.join(folder, _stem(name) + ending), encoding="utf-8-sig") as file:
            return {**BLANK, "caption": file.read().strip().encode() or None}
    except FileNotFoundError:
        return BLANK
    except UnicodeDecodeError as error:
        return {**BLANK, "caption_problem": f"not UTF-8 (byte {error.start})"}
    except OSError as error:
        return {**BLANK, "caption_problem": error.strerror or str(error), "caption_mtime_ns": UNSURE}


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _readers(videos: bool) -> str:
    """The libraries that read headers, by their versions."""
    names = ["pillow", "av"] if videos else ["pillow"]
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _summary(records: IndexedRecords, index: Index, good: np.ndarray, unread: str) -> list[str]:
    """What is said once per folder."""
    bare = np.flatnonzero(index.table["caption"].chunk(0).is_null().to_numpy(zero_copy_only=False)[good])
    kind = "images and videos" if not np.isnan(records.clips[:, 0]).all() else "images"
    folder = records.folder
    lines = []
    if len(bare):
        first = records.name(int(bare[0]))
        lines.append(f"{folder}: {len(bare)} of {len(records)} {kind}{BARE}{first})")
    return [*lines, f"{folder}: left out{unread}"] if unread else lines


def _unread(counts: Counter[str]) -> str:
    """Counts of files that look like media but are not read, e.g. `; not read: 3 .heic`."""
    hint = " (videos need num_frames)" if counts.keys() & VIDEO_ENDINGS else ""
    return f"; not read: {', '.join(f'{count} {ext}' for ext, count in sorted(counts.items()))}{hint}" if counts else ""
