"""What the console shows, also written into a file (`aitk run -l FILE`)."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from types import TracebackType
from typing import TextIO

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r(?!\n)")


class LogFile:
    """Copies sys.stdout and sys.stderr into a file while it is open, without colors and cursor movements."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> LogFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace")
        self._before = (sys.stdout, sys.stderr)
        sys.stdout, sys.stderr = Tee(sys.stdout, self), Tee(sys.stderr, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout, sys.stderr = self._before
        self._file.close()

    def write(self, text: str) -> None:
        """Append to the file only."""
        self._file.write(CONTROL.sub("", text))
        self._file.flush()


class Tee(io.TextIOBase):
    """A console stream that also writes to a log; not a terminal, so that progress comes as lines."""

    def __init__(self, console: TextIO, log: LogFile) -> None:
        self._console = console
        self._log = log

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the console."""
        return self._console.encoding

    def write(self, text: str) -> int:
        """To the console and the log."""
        self._log.write(text)
        return self._console.write(text)

    def flush(self) -> None:
        """The log is flushed at every write."""
        self._console.flush()

    def fileno(self) -> int:
        """That of the console: sub-processes write there, not into the log."""
        return self._console.fileno()

    def writable(self) -> bool:
        """Always."""
        return True
