"""Where captions are: a text file beside each picture, or one file of JSON lines. Nothing is written half."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from toolkit.atomic import atomic_path, remove_leftovers, write_text

IMAGE_KEY, CAPTION_KEY = "file_name", "caption"


class UnreadableCaption(ValueError):
    """A caption is there, but cannot be read; it is not ours to replace."""


class Captions(Protocol):
    """A place of captions."""

    in_one_file: bool
    """Whether only one process may write them."""

    def prepare(self, pictures: Iterable[Path]) -> None:
        """Remove what killed writers left; before anybody writes captions of these pictures."""
        ...

    def place(self, picture: Path) -> str:
        """What identifies the caption of a picture; equal for pictures that share it."""
        ...

    def read(self, picture: Path) -> str:
        """The caption that is there; empty if there is none. Raises UnreadableCaption."""
        ...

    def write(self, texts: Mapping[Path, str]) -> None:
        """Put captions on the disk."""
        ...

    def close(self) -> None:
        """Tidy up."""
        ...


class Sidecars:
    """Caption files beside the pictures, with the ending `extension` (.txt)."""

    in_one_file = False

    def __init__(self, extension: str) -> None:
        self.extension = extension

    def prepare(self, pictures: Iterable[Path]) -> None:
        """In the folders of these pictures."""
        for folder in {picture.parent for picture in pictures}:
            remove_leftovers(folder)

    def file(self, picture: Path) -> Path:
        """Where the caption of a picture is."""
        return picture.with_name(picture.stem + self.extension)

    def place(self, picture: Path) -> str:
        """The caption file."""
        return str(self.file(picture))

    def read(self, picture: Path) -> str:
        """The caption without the white space around it."""
        file = self.file(picture)
        try:
            return file.read_text(encoding="utf-8-sig").strip()
        except FileNotFoundError:
            return ""
        except UnicodeDecodeError as error:
            raise UnreadableCaption(f"{file} is not UTF-8 (byte {error.start})") from error
        except OSError as error:
            raise UnreadableCaption(f"{file}: {error.strerror or error}") from error

    def write(self, texts: Mapping[Path, str]) -> None:
        """One file each, replaced as a whole."""
        for picture, text in texts.items():
            write_text(self.file(picture), text + "\n")

    def close(self) -> None:
        """Nothing is held."""


class JsonLines:
    """One file with {"file_name": ..., "caption": ...} per line; names are relative to the file's folder.

    Lines are appended and forced onto the disk; of two lines for a picture the last one counts, and `close` leaves
    only that one. The line that a kill cut off is dropped when the file is opened.
    """

    in_one_file = True

    def __init__(self, file: Path) -> None:
        self.file = file
        self._entries: dict[str, dict[str, Any]] = {}
        self._num_lines = 0
        self._end = 0
        if file.exists():
            self._load()

    def prepare(self, pictures: Iterable[Path]) -> None:
        """Beside the file."""
        remove_leftovers(self.file.parent, self.file.name)

    def place(self, picture: Path) -> str:
        """The picture's name in the file."""
        return Path(os.path.relpath(picture.absolute(), self.file.absolute().parent)).as_posix()

    def read(self, picture: Path) -> str:
        """The caption without the white space around it."""
        return str(self._entries.get(self.place(picture), {}).get(CAPTION_KEY) or "").strip()

    def write(self, texts: Mapping[Path, str]) -> None:
        """Append a line for each; other keys that a picture had in the file are kept."""
        changed = []
        for picture, text in texts.items():
            name = self.place(picture)
            self._entries[name] = {**self._entries.get(name, {}), IMAGE_KEY: name, CAPTION_KEY: text}
            changed.append(_line(self._entries[name]))
        self._num_lines += len(changed)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("r+b" if self.file.exists() else "wb") as stream:
            stream.truncate(self._end)
            stream.seek(self._end)
            stream.write(b"".join(changed))
            stream.flush()
            os.fsync(stream.fileno())
            self._end = stream.tell()

    def close(self) -> None:
        """Leave one line per picture."""
        if self._num_lines == len(self._entries):
            return
        with atomic_path(self.file) as temporary:
            temporary.write_bytes(b"".join(map(_line, self._entries.values())))
        self._num_lines, self._end = len(self._entries), self.file.stat().st_size

    def _load(self) -> None:
        data = self.file.read_bytes()
        lines = data.splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    entry = json.loads(line)
                    self._entries[entry[IMAGE_KEY]] = entry
                    self._num_lines += 1
                except (ValueError, KeyError, TypeError) as error:
                    if number == len(lines) and not line.endswith(b"\n"):
                        return
                    problem = f'{self.file}:{number}: is not a line {{"file_name": ..., "caption": ...}} in UTF-8'
                    raise ValueError(f"{problem}; repair it, or name another file") from error
            self._end += len(line)
        if data and not data.endswith(b"\n"):
            with self.file.open("ab") as stream:
                stream.write(b"\n")
            self._end += 1


def _line(entry: Mapping[str, Any]) -> bytes:
    # a byte of a name that is no text becomes \udcXX, which JSON reads back
    return (json.dumps(entry, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
