"""A config as plain data, with the line of each key. What the keys mean is not known here."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.config.errors import KeyPath, Notice, Problem, join


@dataclass
class Document:
    """A config as plain data and where each part of it comes from."""

    data: dict[str, Any]
    source: str = ""
    """The file; empty for a config made in Python."""
    lines: dict[KeyPath, int] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    secrets: dict[KeyPath, str] = field(default_factory=dict)
    """Values from the environment as they were written: ${NAME}."""
    problems: list[Problem] = field(default_factory=list)
    """What reading could not do; validation reports it together with everything else."""
    origins: dict[KeyPath, str] = field(default_factory=dict)
    """Values that do not come from the file, and what set them: "--set train.steps=50"."""
    environment: dict[str, str] = field(default_factory=dict)
    """The environment variables that were used, with their values."""

    def where(self, path: KeyPath) -> str:
        """The place of a key, or of the innermost group around it that has one: "job.yaml:12"."""
        for length in range(len(path), -1, -1):
            part = path[:length]
            if part in self.origins:
                return self.origins[part]
            if part in self.lines and self.source:
                return f"{self.source}:{self.lines[part]}"
        return self.source

    def shown(self, path: KeyPath) -> str:
        """A key as users write it: below the process if there is only one."""
        if path[:2] == ("config", "process") and len(path) > 3:
            processes = self.data.get("config", {}).get("process")
            if isinstance(processes, list) and len(processes) == 1:
                return join(path[3:])
        return join(path)

    def problem(self, path: KeyPath, message: str) -> Problem:
        """A problem with the value at `path`."""
        return Problem(self.where(path), self.shown(path), message)

    def complain(self, path: KeyPath, message: str) -> None:
        """Remember a problem with the value at `path`; the first one at a key counts."""
        if not self.is_wrong(path):
            self.problems.append(self.problem(path, message))

    def is_wrong(self, path: KeyPath) -> bool:
        """Whether a problem with the value at `path` is known."""
        return any((other.where, other.path) == (self.where(path), self.shown(path)) for other in self.problems)

    def notice(self, path: KeyPath, message: str) -> None:
        """Remember something to be said once at the start of the run."""
        self.notices.append(Notice(self.where(path), self.shown(path), message))

    def get(self, path: KeyPath, default: Any = None) -> Any:
        """The value at `path`."""
        found: Any = self.data
        for key in path:
            if not _has(found, key):
                return default
            found = found[key]
        return found

    def set(self, path: KeyPath, value: Any) -> None:
        """Put a value at `path`; groups on the way are made."""
        parent: Any = self.data
        for key in path[:-1]:
            if isinstance(parent, dict) and parent.get(key) is None:
                parent[key] = {}
            parent = parent[key]
        parent[path[-1]] = value

    def remove(self, path: KeyPath) -> Any:
        """Take the value at `path` away and return it."""
        return self.get(path[:-1]).pop(path[-1])

    def duplicate(self, old: KeyPath, new: KeyPath) -> None:
        """Give the value at `old` a second key; where it comes from goes along."""
        self.set(new, copy.deepcopy(self.get(old)))
        for marks in (self.lines, self.secrets, self.origins):
            _copy_marks(marks, old, new)

    def move(self, old: KeyPath, new: KeyPath) -> None:
        """Give the value at `old` another key."""
        self.duplicate(old, new)
        self.remove(old)

    def copy(self) -> Document:
        """A document that can be changed without changing this one."""
        return copy.deepcopy(self)

    def mask(self, text: str) -> str:
        """The text with ${NAME} for every value that came from the environment."""
        for name, value in sorted(self.environment.items(), key=lambda item: -len(item[1])):
            # shorter ones are settings such as a number of steps, and would be found everywhere
            if len(value) >= 8:
                text = text.replace(value, f"${{{name}}}")
        return text


def _has(value: Any, key: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(key, int) and 0 <= key < len(value)
    return isinstance(value, Mapping) and key in value


def _copy_marks(marks: dict[KeyPath, Any], old: KeyPath, new: KeyPath) -> None:
    for path in [path for path in marks if path[: len(old)] == old]:
        target = (*new, *path[len(old) :])
        marks[target] = marks[path]
