"""How a spelling is read as meant: moved, changed or taken away, with one notice. The table is in spellings.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.config.document import Document
from toolkit.config.errors import KeyPath
from toolkit.config.wording import shorten

Rewrite = Callable[[Document, KeyPath, KeyPath], None]
"""Changes a document; takes the path of the process and the path of the value."""


@dataclass(frozen=True)
class Spelling:
    """A value at `path` (relative to a process, `*` is any list entry) for which `applies` is rewritten."""

    path: str
    applies: Callable[[Any], bool]
    rewrite: Rewrite
    needs: str
    """Key that the process must have for this to make sense."""


def anything(value: Any) -> bool:
    """True for every value but null, which counts as missing."""
    return value is not None


def one_of(*values: Any) -> Callable[[Any], bool]:
    """True for one of these values; 0 and false differ."""
    return lambda value: any(value == option and type(value) is type(option) for option in values)


def is_text(value: Any) -> bool:
    """True for a text."""
    return isinstance(value, str)


def moved(
    path: str, to: str, applies: Callable[[Any], bool] = anything, *, is_silent: bool = False, wins: bool = False
) -> Spelling:
    """The value belongs to another key. Where that one is set too, it stays, unless the moved one `wins`."""

    def rewrite(document: Document, base: KeyPath, source: KeyPath) -> None:
        targets = list(_targets(document, base, source, path, to))
        if not targets:
            return
        notices = [] if is_silent else [f"read as {to.replace('*', str(target[-2]))}" for target in targets[:1]]
        kept = [target for target in targets if document.get(target) is not None and not wins]
        if kept and document.get(kept[0]) != document.get(source):
            notices = [f"has no effect, because {to} is set"]
        for notice in notices:
            document.notice(source, notice)
        for target in targets:
            if target not in kept:
                document.duplicate(source, target)
        document.remove(source)

    return Spelling(path, applies, rewrite, to.partition(".")[0])


def changed(path: str, applies: Callable[[Any], bool], read: Callable[[Any], Any], say: str = "") -> Spelling:
    """The value means another one; `say` is the notice, {value} is the new value."""

    def rewrite(document: Document, base: KeyPath, source: KeyPath) -> None:
        value = read(document.get(source))
        if say:
            document.notice(source, say.format(value=shorten(value)))
        document.set(source, value)

    return Spelling(path, applies, rewrite, path.partition(".")[0])


def dropped(path: str, applies: Callable[[Any], bool], why: str = "") -> Spelling:
    """The key says what is so anyway."""

    def rewrite(document: Document, base: KeyPath, source: KeyPath) -> None:
        if why:
            document.notice(source, f"not needed: {why}")
        document.remove(source)

    return Spelling(path, applies, rewrite, path.partition(".")[0])


def rewritten(path: str, applies: Callable[[Any], bool], rewrite: Rewrite) -> Spelling:
    """Several keys take part."""
    return Spelling(path, applies, rewrite, path.partition(".")[0])


def pattern_of(path: KeyPath) -> str:
    """The path with `*` for list entries."""
    return ".".join("*" if isinstance(key, int) else key for key in path)


def matches(document: Document, base: KeyPath, pattern: str) -> list[KeyPath]:
    """The paths inside the process at `base` that exist and fit the pattern."""
    found: list[KeyPath] = [base]
    for key in pattern.split("."):
        found = [(*path, step) for path in found for step in _steps(document.get(path), key)]
    return found


def _steps(value: Any, key: str) -> Iterator[str | int]:
    if key == "*" and isinstance(value, list):
        yield from range(len(value))
    elif isinstance(value, Mapping) and key in value:
        yield key


def _targets(document: Document, base: KeyPath, source: KeyPath, path: str, to: str) -> Iterator[KeyPath]:
    """Where a moved value goes: in the same list entry, or in all of them."""
    parts = to.split(".")
    if "*" not in parts:
        target = (*base, *parts)
        in_same_group = parts[0] == path.partition(".")[0]
        if len(parts) == 1 or in_same_group or isinstance(document.get((*base, parts[0])), dict):
            yield target
    elif "*" in path.split("."):
        yield (*base, *(source[len(base) + place] if part == "*" else part for place, part in enumerate(parts)))
    else:
        for group in matches(document, base, to.rpartition(".")[0]):
            yield (*group, parts[-1])
