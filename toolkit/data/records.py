"""The pictures and videos of one data set: a record says where one is, how large, and what its caption is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from toolkit.data.frames import Clip
from toolkit.data.lazy import Lazy

DIGEST_BYTES = 16
READERS = 8
"""So many files are read side by side."""
Captions = tuple[str | None, str | None]
"""Caption and short caption of a record."""
Part = tuple[int, int]
"""Where a picture lies inside its file: offset and length in bytes."""


@dataclass(frozen=True)
class Record:
    """One picture or video of a data set."""

    path: Path
    """The file, or the archive that holds it."""
    name: str
    """Path below the data set's folder, with forward slashes, or what else names it there."""
    width: int
    height: int
    """Sizes as seen, that is after EXIF orientation."""
    caption: str | None = None
    short_caption: str | None = None
    """`caption_short` of a JSON data set."""
    clip: Clip | None = None
    """The length of a video; None for a still picture."""
    part: Part | None = None
    """Which bytes of `path` it is; None for the whole file."""
    known_digest: bytes = b""
    """Hash of the content, where an index has it."""

    @cached_property
    def digest(self) -> bytes:
        """Hash of the content (16 bytes), read when first asked for."""
        return self.known_digest or digest_of(self.path, self.part)


class Records(Protocol):
    """The records of one data set, in the order of their names. A record is made when it is asked for."""

    @property
    def widths(self) -> np.ndarray:
        """int32 [N]."""
        ...

    @property
    def heights(self) -> np.ndarray:
        """int32 [N]."""
        ...

    @property
    def clips(self) -> np.ndarray:
        """float64 [N, 2]: `last_s` and `fps` of every clip, NaN for a still picture."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Record: ...

    def __iter__(self) -> Iterator[Record]: ...

    def chosen(self, rows: np.ndarray) -> Records:
        """Some of them, in this order."""
        ...

    def digests(self, rows: np.ndarray | None = None) -> np.ndarray:
        """uint64 [N, 2]: the hashes of some contents, or of all; zeros where a file cannot be read.

        The two numbers are the bytes of `Record.digest` in little-endian order. What is not known yet is read, in
        parallel, and remembered where there is an index.
        """
        ...

    def names(self) -> Iterator[str]:
        """The names of all."""
        ...

    def captions(self, rows: np.ndarray | None = None) -> Iterator[Captions]:
        """The captions of some records, or of all, those that several share once."""
        ...


class ListedRecords(Lazy[Record]):
    """Records in memory: those of a small source."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = list(records)
        self.widths = np.array([record.width for record in records], np.int32)
        self.heights = np.array([record.height for record in records], np.int32)

    @property
    def clips(self) -> np.ndarray:
        """float64 [N, 2]: `last_s` and `fps` of every clip, NaN for a still picture."""
        clips = [record.clip for record in self._records]
        table = [(clip.last_s, clip.fps) if clip else (np.nan, np.nan) for clip in clips]
        return np.array(table, np.float64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._records)

    def at(self, place: int) -> Record:
        """One of them."""
        return self._records[place]

    def chosen(self, rows: np.ndarray) -> ListedRecords:
        """Some of them, in this order."""
        return ListedRecords([self._records[row] for row in rows.tolist()])

    def digests(self, rows: np.ndarray | None = None) -> np.ndarray:
        """uint64 [N, 2]: the hashes of some contents, or of all; zeros where a file cannot be read."""
        some = self._records if rows is None else [self._records[row] for row in rows.tolist()]
        with ThreadPoolExecutor(READERS) as pool:
            return as_numbers(list(pool.map(_digest, some)))

    def names(self) -> Iterator[str]:
        """The names of all."""
        return (record.name for record in self._records)

    def captions(self, rows: np.ndarray | None = None) -> Iterator[Captions]:
        """The captions of some records, or of all, those that several share once."""
        some = self._records if rows is None else [self._records[row] for row in rows.tolist()]
        yield from dict.fromkeys((record.caption, record.short_caption) for record in some)


def as_numbers(digests: Sequence[bytes]) -> np.ndarray:
    """uint64 [N, 2] of so many hashes."""
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64).reshape(-1, 2)


def digest_or_zeros(path: Path, part: Part | None = None) -> bytes:
    """Hash of a file, or of a part of it; zeros if it cannot be read."""
    try:
        return digest_of(path, part)
    except OSError:
        return bytes(DIGEST_BYTES)


def _digest(record: Record) -> bytes:
    return record.known_digest or digest_or_zeros(record.path, record.part)


def digest_of(path: Path, part: Part | None = None) -> bytes:
    """Hash of a file, or of a part of it: 16 bytes of BLAKE2b."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with open(path, "rb") as file:
        offset, rest = part or (0, -1)
        file.seek(offset)
        while block := file.read(1 << 20 if rest < 0 else min(1 << 20, rest)):
            digest.update(block)
            rest -= len(block) if rest >= 0 else 0
    return digest.digest()
