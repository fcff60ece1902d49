"""What starts a job elsewhere than in this process, and what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Array:
    """The runs of a sweep that are started together."""

    name: str
    folder: Path
    """Holds a folder per run, named by its index."""
    indices: Sequence[int]
    inside: str = ""
    """Where in the folder of a run its results go, if not right into it."""
    config: str = "job.yaml"
    """The config of a run, in its folder."""


@dataclass(frozen=True)
class Order:
    """What a launcher starts."""

    command: Sequence[str]
    """Does the job in one process, as each of its ranks does."""
    test_only: bool = False
    """Only ask the cluster whether it would take the job, and when."""
    wait: bool = False
    """Come back when a job that was handed over is done."""
    depends_on: Sequence[str] = ()
    """Options of the submission that say what has to happen before."""
    array: Array | None = None
    """In place of one job."""


class Launcher(Protocol):
    """What `LauncherPlugin.build` returns."""

    hands_over: bool
    """Whether `start` hands the job to a cluster, which also takes arrays, instead of doing it."""
    job_id: str
    """What the cluster calls the job that was handed over last; "" if none was."""

    def plan(self, order: Order) -> list[str]:
        """What would be started, for `aitk run --dry-run`."""
        ...

    def start(self, order: Order) -> int:
        """Have the job done, or hand it over; returns the exit code."""
        ...
