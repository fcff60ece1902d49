"""What lies in a cache folder, how large it is and whether it is of use: for `aitk cache ls` and `prune`. No torch."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.data.cache.shard import SUFFIX, BadShard, OldShard, read_header

INDEX = "index"
WHOLE = ("quantized", "class_images", "unpacked")
"""Kinds whose folders are each of use only as a whole."""
OLD = "in the format of another version"
LEFT_AFTER_S = 3600.0
"""A hidden file that grew within this time may still be written."""


@dataclass(frozen=True)
class Entry:
    """A file of rows, an index, or a folder: quantized weights, class pictures, an unpacked data set."""

    kind: str
    """The folder it is in: latents, conditions, text, index, quantized, class_images, unpacked."""
    path: Path
    num_bytes: int
    used: float
    """When it was last written or of use, seconds since 1970."""
    num_rows: int | None = None
    written: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    useless: str = ""
    """Why nothing will ever read it."""


def list_entries(root: Path, now: float) -> list[Entry]:
    """All that a cache folder holds. What this program did not write is left out."""
    entries: list[Entry] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        for path in sorted(folder.iterdir()):
            # another process may have removed it meanwhile
            try:
                entries += _entries(folder.name, path, now)
            except FileNotFoundError:
                continue
    return entries


def shards(root: Path) -> list[Path]:
    """The files of rows of a cache folder, also those that cannot be read."""
    found = [path for path in sorted(root.glob(f"*/*{SUFFIX}")) if path.parent.name != INDEX]
    return [path for path in found if not path.name.startswith(".") and is_our_name(path)]


def choose(
    entries: Iterable[Entry], now: float, older_than_s: float | None, max_bytes: int | None
) -> list[tuple[Entry, str]]:
    """What to delete, with the reason: what is useless, what is too old, and of the rest what was used longest ago."""
    chosen: list[tuple[Entry, str]] = []
    kept: list[Entry] = []
    for entry in entries:
        if entry.useless:
            chosen.append((entry, entry.useless))
        elif older_than_s is not None and now - entry.used > older_than_s:
            chosen.append((entry, f"not used for {(now - entry.used) / 86400:.0f} days"))
        else:
            kept.append(entry)
    surplus = sum(entry.num_bytes for entry in kept) - (max_bytes or 0) if max_bytes is not None else 0
    for entry in sorted(kept, key=lambda entry: (entry.used, entry.path)):
        if surplus > 0:
            chosen.append((entry, "used longest ago"))
            surplus -= entry.num_bytes
    return chosen


def delete(path: Path) -> str:
    """Delete a file or a folder; says why that failed, "" if it did not."""
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except FileNotFoundError:
        return ""
    except OSError as error:
        # Windows deletes no file that a run has open
        return f"{path}: not deleted ({error.strerror or error}); is a run using it?"
    return ""


def _entries(kind: str, path: Path, now: float) -> Iterator[Entry]:
    """The entry that a path is, if it is one."""
    if path.name.startswith(".aitk-"):
        num_bytes, used = _measure(path)
        if now - used > LEFT_AFTER_S:
            yield Entry(kind, path, num_bytes, used, useless="left by a run that was killed")
    elif kind in WHOLE and path.is_dir():
        yield Entry(kind, path, *_measure(path))
        for left in sorted(path.rglob(".aitk-*")):
            yield from _entries(kind, left, now)
    elif kind == INDEX and path.suffix == ".arrow":
        about, useless = _indexed(path)
        yield Entry(kind, path, *_measure(path), about=about, useless=useless)
    elif path.suffix == SUFFIX and path.is_file():
        yield from _shard(kind, path)


def _shard(kind: str, path: Path) -> Iterator[Entry]:
    try:
        header = read_header(path)
    except OldShard:
        yield Entry(kind, path, *_measure(path), useless=OLD)
    except BadShard as error:
        # another program's file is none of our business
        if is_our_name(path):
            yield Entry(kind, path, *_measure(path), useless=str(error))
    else:
        written = header.metadata.get("written", "")
        yield Entry(kind, path, *_measure(path), header.num_rows, written, header.about)


def is_our_name(path: Path) -> bool:
    """Whether a file has a name as the cache gives: 24 hexadecimal digits."""
    return len(path.stem) == 24 and not set(path.stem) - set("0123456789abcdef")


def _indexed(path: Path) -> tuple[dict[str, str], str]:
    """The folder that an index is of, and why the index is useless."""
    import pyarrow as pa

    try:
        with pa.OSFile(os.fspath(path)) as file:
            metadata = pa.ipc.open_file(file).schema.metadata or {}
        folder = json.loads(metadata.get(b"aitk", b"{}")).get("folder", "")
    except (OSError, ValueError):
        return {}, "damaged"
    if folder and not Path(folder).exists():
        return {"folder": folder}, f"its folder is gone: {folder}"
    return ({"folder": folder} if folder else {}), ""


def _measure(path: Path) -> tuple[int, float]:
    """Bytes of a file or folder, and when it was last changed."""
    stats = [file.stat() for file in ([path, *path.rglob("*")] if path.is_dir() else [path])]
    return sum(stat.st_size for stat in stats), max(stat.st_mtime for stat in stats)
