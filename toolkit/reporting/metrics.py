"""The record of a run in numbers, metrics.jsonl, and what every logger can do."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from toolkit.atomic import write_text


class Logger(Protocol):
    """Where numbers and pictures of a run go."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Store the values of one step."""

    def images(self, step: int, paths: Sequence[Path]) -> None:
        """Store the pictures sampled at one step."""

    def close(self) -> None:
        """Write out what is pending."""


class MetricsFile:
    """Appends one JSON object per logged step: {"step": 500, "time": 1724085406.8, "loss": 0.21, ...}."""

    def __init__(self, path: Path, resumed_step: int = 0) -> None:
        _forget_after(path, resumed_step)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Line-buffered: a killed run leaves all that was logged, at worst half a line, which the next start drops.
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line; what is not finite becomes null, for JSON has no word for it."""
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **finite}) + "\n")

    def images(self, step: int, paths: Sequence[Path]) -> None:
        """Nothing: the pictures lie in samples/ with their step in the name."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the lines of a metrics file that are whole."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _forget_after(path: Path, step: int) -> None:
    """Drop the lines of steps after `step`, which the resumed run does again, and half a line of a killed run."""
    if path.exists():
        kept = [row for row in read_metrics(path) if row["step"] <= step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
