"""What a launcher does for `aitk run`: on several GPUs of this machine, or on a cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from jobs import Job, Sweep
from toolkit.launch.environment import is_launched
from toolkit.launch.launcher import Launcher, Order
from toolkit.launch.local import STOPPED
from toolkit.launch.record import run_folder
from toolkit.registry import ROOT


class Ended(Exception):
    """What was done elsewhere did not end well, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__("it was asked to stop" if code == STOPPED else f"exit code {code}: what it printed says why")
        self.code = code


@dataclass
class Start:
    """What one launcher does, once; on a cluster, another one may have to end well before."""

    name: str
    launcher: Launcher
    after: Start | None = None
    ids: Sequence[str] = ()
    """What does it on the cluster, which one after it waits for."""
    is_refused: bool = False

    def begin(self, order: Order) -> None:
        """Have it done, or hand it over; raises `Ended`."""
        if self.after is not None and self.after.is_refused:
            self.is_refused = True
            print(f"'{self.name}' was not submitted, because it waits for '{self.after.name}'", file=sys.stderr)
            raise Ended(1)
        if self.after is not None and self.after.ids:
            ids = self.after.ids
            options = (f"--dependency=afterok:{':'.join(ids)}", "--kill-on-invalid-dep=yes")
            order = replace(order, depends_on=options)
            print(f"'{self.name}' begins when '{self.after.name}' ({', '.join(ids)}) has ended well", flush=True)
        self.is_refused = True
        if code := self.launcher.start(order):
            raise Ended(code)
        self.is_refused = False
        self.ids = [*self.ids, *([self.launcher.job_id] if self.launcher.job_id else [])]


class Elsewhere(Protocol):
    """Something that `aitk run` has done otherwise than as one job in this process."""

    @property
    def subject(self) -> Job | Sweep:
        """What its config describes."""
        ...

    @property
    def start(self) -> Start | None:
        """Of what one launcher does as a whole."""
        ...

    def plan(self) -> list[str]:
        """What would be done, and where."""
        ...

    def run(self) -> None:
        """Have it done; raises `Ended`."""
        ...


Todo = Job | Elsewhere
"""One config of the command line, and how it is done."""


@dataclass(frozen=True)
class LaunchedJob:
    """A job that a launcher does."""

    subject: Job
    start: Start
    order: Order

    def plan(self) -> list[str]:
        """What would be done, and where."""
        return [*self.subject.plan(), *self.start.launcher.plan(self.order)]

    def run(self) -> None:
        """Have it done; raises `Ended`."""
        self.start.begin(self.order)


def launched(job: Job, order: Order) -> Job | LaunchedJob:
    """The job with its launcher, if it has one, but not where one has started this process."""
    if job.launcher is None or is_launched(os.environ):
        return job
    return LaunchedJob(job, Start(job.name, job.launcher.build(job)), order)


def chain(todo: Sequence[Todo]) -> None:
    """Have everything for a cluster wait for what comes before it."""
    starts = [work.start for work in todo if not isinstance(work, Job) and work.start is not None]
    handed_over = [start for start in starts if start.launcher.hands_over]
    for start, before in zip(handed_over[1:], handed_over, strict=False):
        start.after = before


def is_handed_over(work: Todo) -> bool:
    """Whether a cluster does the work, later."""
    return not isinstance(work, Job) and work.start is not None and work.start.launcher.hands_over


def subject_of(work: Todo) -> Job | Sweep:
    """What the config describes."""
    return work if isinstance(work, Job) else work.subject


def folder_of(work: Todo) -> Path:
    """Where the results go; of a sweep, where the folders of the runs are."""
    subject = subject_of(work)
    return run_folder(subject) if isinstance(subject, Job) else subject.folder.path


def worker_command(
    config: str, name: str | None, overrides: Sequence[str], allow_unknown: bool, log: Path | None
) -> list[str]:
    """The command line that does one job in the process that runs it."""
    options = [] if name is None else ["--name", name]
    options += [part for each in overrides for part in ("--set", each)]
    options += ["--allow-unknown"] if allow_unknown else []
    options += [] if log is None else ["--log", str(log)]
    return [sys.executable, str(ROOT / "run.py"), config, *options]


def launch_keys(slurm: bool, gpus: int | None) -> list[str]:
    """What --slurm and --gpus say, as values of the config; its own keys stay, but for those of another launcher."""
    if slurm:
        return ["launch.type=slurm"]
    return [] if gpus is None else ["launch.type=local", f"launch.gpus={gpus}"]
