"""Runs side by side: what of their configs differs, and what came of each. Reads their folders, changes nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import yaml

from toolkit.config.reading.text import Loader
from toolkit.reporting.metrics import read_metrics

CONFIG_FILES = ("job.yaml", "config.yaml", "slurm/config.yaml")
"""Where a run has its config: one of a sweep, one that has begun, one that waits on a cluster."""
OWN = ("name", "training_folder")
"""Keys that differ between any two runs."""
LOSS, VALIDATION = "loss/loss", "validation/loss"
FEWEST = 4
"""Sides of lines from which on a longer one between two lines counts as a pause."""


@dataclass(frozen=True)
class Outcome:
    """What came of one run."""

    folder: Path
    name: str
    """As short as it can be told from the others."""
    settings: Mapping[str, Any]
    """The keys whose values are not the same in all runs."""
    state: str
    steps: int | None
    loss: float | None
    """The last one that was logged."""
    mean: float | None
    """Over all that were logged."""
    lowest: float | None
    validation: float | None
    seconds: float | None
    """From the first line of metrics to the last, without pauses between two starts."""
    samples: Path | None
    """Folder of the pictures, if there are any."""

    def row(self) -> dict[str, Any]:
        """One plain value per column."""
        return {
            "run": self.name,
            **self.settings,
            "state": self.state,
            "steps": self.steps,
            "loss": self.loss,
            "mean": self.mean,
            "min": self.lowest,
            "validation": self.validation,
            "seconds": self.seconds,
            "samples": None if self.samples is None else str(self.samples),
        }


def compare(folders: Sequence[Path], states: Mapping[Path, str], steps: Mapping[Path, int | None]) -> list[Outcome]:
    """The outcome of each run, in this order; `steps` are those that it says to have done, where that is known.

    Raises ValueError if a folder has no config of a run.
    """
    settings = [_settings(folder) for folder in folders]
    keys = _differing(settings)
    names = short_names(folders)
    found = []
    for folder, name, own in zip(folders, names, settings, strict=True):
        settings_shown = {key: own.get(key) for key in keys}
        found.append(_outcome(folder, name, settings_shown, states.get(folder, ""), steps.get(folder)))
    return found


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    paths = [folder.absolute() for folder in folders]
    for count in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(path) for path in paths]


def is_run_folder(folder: Path) -> bool:
    """Whether a folder has the config of a run."""
    return any((folder / name).is_file() for name in CONFIG_FILES)


def _settings(folder: Path) -> dict[str, Any]:
    """Every value of the config of a run by its key, as `--set` takes it."""
    file = next((folder / name for name in CONFIG_FILES if (folder / name).is_file()), None)
    if file is None:
        raise ValueError(f"{folder} is no run: it has no {CONFIG_FILES[1]}")
    try:
        processes = yaml.load(file.read_text(encoding="utf-8"), Loader=Loader)["config"]["process"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read as a config: {error}") from error
    found: dict[str, Any] = {}
    for index, process in enumerate(processes):
        prefix = "" if len(processes) == 1 else f"config.process.{index}."
        own = {key: value for key, value in process.items() if key not in OWN}
        found |= {prefix + key: value for key, value in _flat(own).items()}
    return found


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Plain values by dotted key; a list of plain values is one of them."""
    inside: Mapping[Any, Any] = {}
    if isinstance(value, dict):
        inside = value
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        inside = dict(enumerate(value))
    if not inside:
        return {path: value} if path else {}
    return {key: item for name, one in inside.items() for key, item in _flat(one, f"{path}.{name}".lstrip(".")).items()}


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for own in settings for key in own)
    return [key for key in keys if len({json.dumps(own.get(key), default=str) for own in settings}) > 1]


def _outcome(folder: Path, name: str, settings: Mapping[str, Any], state: str, steps: int | None) -> Outcome:
    rows = read_metrics(folder / "metrics.jsonl")
    losses = _column(rows, LOSS)
    held_out = _column(rows, VALIDATION)
    samples = folder / "samples"
    return Outcome(
        folder,
        name,
        settings,
        state,
        steps=max((int(row["step"]) for row in rows if "step" in row), default=None) if steps is None else steps,
        loss=losses[-1] if losses else None,
        mean=fmean(losses) if losses else None,
        lowest=min(losses, default=None),
        validation=held_out[-1] if held_out else None,
        seconds=_duration(_column(rows, "time")),
        samples=samples if samples.is_dir() and any(samples.iterdir()) else None,
    )


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(row[key]) for row in rows if isinstance(row.get(key), int | float)]


def _duration(times: Sequence[float]) -> float | None:
    """Seconds; what is far longer than usual between two lines is the wait for another start, or a suspended laptop."""
    sides = [max(0.0, after - before) for before, after in itertools.pairwise(times)]
    if not sides:
        return None
    longest = 60 + 20 * median(sides) if len(sides) >= FEWEST else float("inf")
    return sum(side for side in sides if side <= longest)
