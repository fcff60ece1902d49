"""What is wrong with a config, or worth saying about it: one line each, with the place in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the top of a document: ("config", "process", 0, "train", "steps")."""


def join(path: Iterable[str | int]) -> str:
    """A key path as users write it: train.steps, datasets.0.folder_path."""
    return ".".join(str(key) for key in path)


@dataclass(frozen=True)
class Remark:
    """`where` is "file:line", or what was typed instead; `path` is the key, as users write it."""

    where: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.message) if part)


@dataclass(frozen=True)
class Problem(Remark):
    """Something that has to be corrected before the config can run."""


@dataclass(frozen=True)
class Notice(Remark):
    """Something that runs, but not as ai-toolkit would do it, or not exactly as written."""


class ConfigError(ValueError):
    """A config cannot run; carries every problem that was found, not only the first one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Let a ValueError inside begin with the key that is to blame: what the user wrote is wrong, not the program."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
