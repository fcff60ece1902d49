"""Jobs that are done elsewhere: by several processes of this machine, or by a cluster."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from jobs import Job, Sweep
from toolkit.launch.background import busy, in_background, start
from toolkit.launch.environment import is_launched, on_cluster, own_rank, stop_signals
from toolkit.launch.launcher import Array, Launcher, Order
from toolkit.launch.record import Record, State, close, is_live, read_status, run_folder
from toolkit.registry import ROOT, get_registry


class Elsewhere(Protocol):
    """Something that `aitk run` has done otherwise than as one job in this process."""

    @property
    def name(self) -> str: ...
    @property
    def job(self) -> Job: ...
    @property
    def folder(self) -> Path: ...
    def plan(self) -> list[str]: ...
    def run(self) -> None: ...


Todo = Job | Elsewhere


class Ended(Exception):
    """A job that was done elsewhere did not end well, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


@dataclass
class LaunchedJob:
    """A job and what has it done."""

    job: Job
    launcher: Launcher
    order: Order
    after: LaunchedJob | LaunchedSweep | None = None
    """What has to end well on a cluster before this begins."""
    ids: Sequence[str] = ()
    """Of the jobs on a cluster that this waits for to be done."""
    is_refused: bool = False

    @property
    def name(self) -> str:
        """The job's."""
        return self.job.name

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return run_folder(self.job)

    def plan(self) -> list[str]:
        """What would be done, and where."""
        return [*self.job.plan(), *self.launcher.plan(self.order)]

    def run(self) -> None:
        """Have it done; raises `Ended`."""
        self.ids = _start(self, self.order)


@dataclass
class LaunchedSweep:
    """The runs of a sweep and what has them done together."""

    sweep: Sweep
    launcher: Launcher
    order: Order
    prepare: Callable[[], tuple[Array, list[str]]]
    """Writes the runs down; which of them are to be started, and the ids of what is at work on others."""
    show: Callable[[], list[str]]
    """The runs as a table."""
    after: LaunchedJob | LaunchedSweep | None = None
    ids: Sequence[str] = ()
    is_refused: bool = False

    @property
    def name(self) -> str:
        """The sweep's."""
        return self.sweep.name

    @property
    def job(self) -> Job:
        """The first of the jobs, whose config is that of the others but for a few keys."""
        return self.sweep.jobs[0]

    @property
    def folder(self) -> Path:
        """Where the folders of the runs are."""
        return self.sweep.folder.path

    def plan(self) -> list[str]:
        """The runs, what the first of them would do, and where."""
        every = [point.index for point in self.sweep.points]
        order = replace(self.order, array=self.sweep.array(every))
        return [*self.show(), "of the first:", *self.sweep.jobs[0].plan(), *self.launcher.plan(order)]

    def run(self) -> None:
        """Have the runs done that are not done yet; raises `Ended`."""
        array, self.ids = self.prepare()
        if array.indices:
            self.ids = [*self.ids, *_start(self, replace(self.order, array=array))]
        else:
            print(f"there is nothing to submit of the sweep '{self.name}'", flush=True)


def _start(work: LaunchedJob | LaunchedSweep, order: Order) -> list[str]:
    """Start what was ordered, after what it waits for; the ids on a cluster. Raises `Ended`."""
    before = work.after
    if before is not None:
        if before.is_refused:
            work.is_refused = True
            print(f"'{work.name}' was not submitted, because it waits for '{before.name}'", file=sys.stderr)
            raise Ended(1)
        if before.ids:
            options = (f"--dependency=afterok:{':'.join(before.ids)}", "--kill-on-invalid-dep=yes")
            order = replace(order, depends_on=options)
            print(f"'{work.name}' begins when '{before.name}' ({', '.join(before.ids)}) has ended well", flush=True)
    work.is_refused = True
    if code := work.launcher.start(order):
        raise Ended(code)
    work.is_refused = False
    return [work.launcher.job_id] if work.launcher.job_id else []


def chain(todo: Sequence[Todo]) -> None:
    """Have everything for a cluster wait for what comes before it."""
    handed_over = [work for work in todo if isinstance(work, LaunchedJob | LaunchedSweep) and work.launcher.hands_over]
    for work, before in zip(handed_over[1:], handed_over, strict=False):
        work.after = before


def is_handed_over(work: Todo) -> bool:
    """Whether a cluster does the work, later."""
    return isinstance(work, LaunchedJob | LaunchedSweep) and work.launcher.hands_over


def launched(job: Job, chosen: Mapping[str, Any] | None, order: Order) -> Job | LaunchedJob:
    """The job with its launcher, if it has one, but not where one has started this process.

    `chosen` is what the command line says in place of `launch`; of its own type, the config's keys stay.
    """
    if is_launched(os.environ):
        return job
    plugin = job.launcher
    if chosen is not None and (plugin is None or plugin.type != chosen["type"] or len(chosen) > 1):
        plugin = get_registry().load("launchers", chosen["type"]).model_validate(chosen)
    return job if plugin is None else LaunchedJob(job, plugin.build(job), order)


def begin(job: Todo) -> None:
    """Note that the job works, where it has no terminal that would show it; a trainer notes more than that."""
    has_no_terminal = on_cluster(os.environ) or in_background(os.environ)
    if has_no_terminal and own_rank(os.environ) == 0 and not is_live(read_status(_folder(job))):
        Record(_folder(job))


def end(job: Todo, state: State, reason: str = "") -> None:
    """Note how the job ended, if something was noted of it."""
    if own_rank(os.environ) == 0:
        close(_folder(job), state, reason)


def send_to_background(jobs: Sequence[Todo], command: Sequence[str]) -> int:
    """Start `command` without a terminal, which does the jobs, and say where to look; the exit code."""
    folders = [_folder(job) for job in jobs]
    for folder in folders:
        if process := busy(folder):
            print(f"{folder} is in use by another run, {process}; `aitk cancel {folder}` stops it", file=sys.stderr)
            return 1
    pid, log = start(command, folders, os.environ)
    for job, folder in zip(jobs, folders, strict=True):
        print(f"job '{job.name}' runs in the background as process {pid}; results: {folder}")
    print(f"log: {log}\n`aitk status`, `aitk logs -f` and `aitk cancel` watch and stop it")
    return 0


def _folder(job: Todo) -> Path:
    if on_cluster(os.environ):
        return Path(os.environ["AITK_RUN_FOLDER"])
    return run_folder(job) if isinstance(job, Job) else job.folder


def worker_command(
    config: str, name: str | None, overrides: Sequence[str], allow_unknown: bool, log: Path | None
) -> list[str]:
    """The command line that does one job in the process that runs it."""
    options = [] if name is None else ["--name", name]
    options += [part for each in overrides for part in ("--set", each)]
    options += ["--allow-unknown"] if allow_unknown else []
    options += [] if log is None else ["--log", str(log)]
    return [sys.executable, str(ROOT / "run.py"), config, *options]


def choices(slurm: bool, gpus: int | None) -> list[str]:
    """What --slurm and --gpus say, as values of the config; its own keys stay, but for those of another launcher."""
    if slurm:
        return ["launch.type=slurm"]
    return [] if gpus is None else ["launch.type=local", f"launch.gpus={gpus}"]


@contextmanager
def leaving_when_told(env: Mapping[str, str]) -> Iterator[None]:
    """What a cluster sends before it ends a job is like ctrl+c; the steps of a trainer hear it themselves, and save."""
    kept = {number: signal.signal(number, _interrupt) for number in (stop_signals(env) if on_cluster(env) else ())}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
