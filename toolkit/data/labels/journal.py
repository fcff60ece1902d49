"""What an edit of captions changed, written down before the first file is touched, so that it can be undone exactly.

A journal is one file per edit in `.aitk/edits` of the data folder: hidden, so it is never taken for data, and it goes
along when the folder is moved. Each line holds a file's bytes before and after. A kill in the middle of an edit leaves
every file with its old or its new bytes, and a journal that knows both.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.atomic import atomic_path

FOLDER = Path(".aitk", "edits")
VERSION = 1


@dataclass(frozen=True)
class Change:
    """One file, as it was and as it is to be; None: there is no such file."""

    name: str
    """Path below the data folder, with forward slashes."""
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class Edit:
    """One journal: an edit that was made, or begun."""

    path: Path
    command: str
    time: str

    def changes(self) -> Iterator[Change]:
        """What it changed, in order."""
        with self.path.open(encoding="utf-8") as file:
            next(file)
            for line in file:
                name, before, after = json.loads(line)
                yield Change(name, _bytes(before), _bytes(after))


@dataclass
class Outcome:
    """What became of the files of an edit, or of an undo."""

    num_written: int = 0
    num_already: int = 0
    """Files that had the wanted bytes."""
    changed_since: tuple[str, ...] = ()
    """Files that someone else changed in between; they are left as they are, unless forced."""


def edits(folder: Path) -> list[Edit]:
    """The edits of a data folder that can be undone, the oldest first."""
    return [_read(path) for path in sorted((folder / FOLDER).glob("[0-9]*.jsonl"))]


def record(folder: Path, command: str, changes: Iterable[Change]) -> Edit | None:
    """Write down what an edit is going to change; None if that is nothing."""
    changes = iter(changes)
    first = next(changes, None)
    if first is None:
        return None
    known = edits(folder)
    number = int(known[-1].path.stem) + 1 if known else 1
    path = folder / FOLDER / f"{number:06d}.jsonl"
    edit = Edit(path, command, time.strftime("%Y-%m-%dT%H:%M:%S"))
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps({"version": VERSION, "command": command, "time": edit.time}) + "\n")
        for change in _chain(first, changes):
            file.write(json.dumps([change.name, _text(change.before), _text(change.after)]) + "\n")
    return edit


def apply(folder: Path, edit: Edit) -> Outcome:
    """Bring every file of an edit to its new bytes."""
    return _move(folder, edit.changes(), force=False)


def undo(folder: Path, edit: Edit, force: bool = False, dry_run: bool = False) -> Outcome:
    """Bring every file of the newest edit back to its old bytes, and forget the edit.

    If a file was changed since, nothing is done and the outcome names it; with `force`, it is put back as well.
    """
    changed = tuple(change.name for change in edit.changes() if not _is_known(_content(folder, change), change))
    if dry_run or (changed and not force):
        return Outcome(changed_since=changed)
    backwards = (Change(change.name, change.after, change.before) for change in edit.changes())
    outcome = _move(folder, backwards, force)
    edit.path.unlink()
    return outcome


def _move(folder: Path, changes: Iterable[Change], force: bool) -> Outcome:
    outcome = Outcome()
    for change in changes:
        content = _content(folder, change)
        if content == change.after:
            outcome.num_already += 1
        elif content == change.before or force:
            _write(folder / change.name, change.after)
            outcome.num_written += 1
        else:
            outcome.changed_since += (change.name,)
    return outcome


def _is_known(content: bytes | None, change: Change) -> bool:
    return content in (change.before, change.after)


def _content(folder: Path, change: Change) -> bytes | None:
    try:
        return (folder / change.name).read_bytes()
    except FileNotFoundError:
        return None


def _write(path: Path, content: bytes | None) -> None:
    """Replace a file whole or not at all, with the rights it had; a link goes on pointing where it points."""
    # a rename would put a file in the place of the link
    real = Path(os.path.realpath(path))
    if content is None:
        real.unlink(missing_ok=True)
        return
    mode = real.stat().st_mode if real.exists() else None
    with atomic_path(real) as temporary:
        temporary.write_bytes(content)
        if mode is not None:
            temporary.chmod(mode & 0o7777)


def _read(path: Path) -> Edit:
    try:
        with path.open(encoding="utf-8") as file:
            head = json.loads(file.readline())
        if head["version"] != VERSION:
            raise ValueError(f"version {head['version']}")
        return Edit(path, head["command"], head["time"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no journal that this version reads ({error}); move it away to go on") from error


def _chain(first: Change, rest: Iterator[Change]) -> Iterator[Change]:
    yield first
    yield from rest


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode("ascii")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
