"""A picture or video that is a part of a larger file, such as a tar, is read as if it were a file of its own."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.data.records import Part

BUFFER = 1 << 14
"""Headers are small; a larger block would be read for nothing."""


class PartOfFile(io.RawIOBase):
    """The bytes from `offset` to `offset + length` of a file that is open."""

    def __init__(self, file: io.RawIOBase, part: Part) -> None:
        self._file, (self._start, self._length), self._at = file, part, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        if origin + offset < 0:
            raise OSError("seek before the start")
        self._at = origin + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._length - self._at)]
        if not len(view):
            return 0
        self._file.seek(self._start + self._at)
        count = self._file.readinto(view) or 0  # type: ignore[attr-defined]
        self._at += count
        return int(count)


@contextmanager
def opened(path: Path | str, part: Part | None = None) -> Iterator[Any]:
    """What Pillow and PyAV can open: the path itself, or the open part of it."""
    if part is None:
        yield path
        return
    with open(path, "rb", buffering=0) as file, io.BufferedReader(PartOfFile(file, part), BUFFER) as window:
        yield window
