"""Small files of JSON that several programs read while one writes: what is missing or cut short counts as nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_group(path: Path) -> dict[str, Any]:
    """The keys of a file that holds one group of them; none if it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The groups of keys in a file with one in each line, as `add_line` writes it; none if there is no such file."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):  # cut short by a kill
            found.append(json.loads(line))
    return [entry for entry in found if isinstance(entry, dict)]


def add_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Add a group of keys to such a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
