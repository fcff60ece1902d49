"""The runs of a sweep: one after another on this machine, or as one job array on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs import Job, Sweep
from toolkit.cli.launching import Ended, LaunchedJob, Start, launched, worker_command
from toolkit.cli.table import format_table
from toolkit.config.errors import Problem
from toolkit.config.preflight import preflight
from toolkit.launch import sweep as states
from toolkit.launch.launcher import Array, Order
from toolkit.launch.local import STOPPED
from toolkit.launch.queue import Queue
from toolkit.launch.record import submissions
from toolkit.launch.standing import standing
from toolkit.launch.sweep import Run, brief

Work = Callable[[Job | LaunchedJob], int]
"""Does one job and says what went wrong; the exit code."""
QUEUED = "on the cluster"


@dataclass(frozen=True)
class LocalSweep:
    """A sweep whose runs are done one after another; those that are done already are left out."""

    subject: Sweep
    jobs: Sequence[Job | LaunchedJob]
    work: Work

    @property
    def start(self) -> None:
        """Each of the runs may have its own."""

    def plan(self) -> list[str]:
        """The runs, and what the first of them would do."""
        return [*plan(self.subject), "one after another on this machine; of the first:", *self.jobs[0].plan()]

    def run(self) -> None:
        """Do what is not done; one that fails does not keep the others from being done. Raises `Ended`."""
        with self.subject.folder.lock():
            self._run()

    def _run(self) -> None:
        runs, folder = self.subject.runs(), self.subject.folder
        folder.write(self.subject.name, runs, [run.index for run in runs])
        print_notices(self.subject)
        codes = []
        for run, job in zip(runs, self.jobs, strict=True):
            if folder.state(run) == states.DONE:
                print(f"run {run.index} is done already: {run.label}", flush=True)
                continue
            print(f"run {run.index}, one of {len(runs)}: {run.label}", flush=True)
            states.record(folder.run_folder(run.index), states.RUNNING, run.text)
            code = self.work(job)
            states.record(folder.run_folder(run.index), states.state_after(code), run.text)
            if code == STOPPED:
                print(f"the sweep '{self.subject.name}' was stopped; the same command goes on with it", file=sys.stderr)
                raise Ended(STOPPED)
            codes.append(code)
        print("\n".join(outcome(self.subject, runs)), flush=True)
        print(f"what came of them: aitk compare {folder.path}", flush=True)
        if bad := [code for code in codes if code]:
            raise Ended(min(bad))


@dataclass(frozen=True)
class LaunchedSweep:
    """A sweep whose runs a cluster does together."""

    subject: Sweep
    start: Start
    order: Order

    def plan(self) -> list[str]:
        """The runs, what the first of them would do, and where."""
        every = self.subject.array([point.index for point in self.subject.points])
        first = [*self.subject.jobs[0].plan(), *self.start.launcher.plan(replace(self.order, array=every))]
        return [*plan(self.subject), "of the first:", *first]

    def run(self) -> None:
        """Submit the runs that are neither done nor on the cluster; raises `Ended`."""
        array, self.start.ids = _array(self.subject)
        if array.indices:
            self.start.begin(replace(self.order, array=array))
        else:
            print(f"there is nothing to submit of the sweep '{self.subject.name}'", flush=True)


def swept(sweep: Sweep, order: Order, work: Work) -> LocalSweep | LaunchedSweep:
    """The sweep with what has it done; `work` does one run of it in this process."""
    first = launched(sweep.jobs[0], order)
    if isinstance(first, LaunchedJob) and first.start.launcher.hands_over:
        return LaunchedSweep(sweep, Start(sweep.name, first.start.launcher), order)
    configs = [str(sweep.folder.config_path(point.index)) for point in sweep.points]
    orders = [replace(order, command=worker_command(config, None, [], False, None)) for config in configs]
    jobs = [launched(job, each) for job, each in zip(sweep.jobs, orders, strict=True)]
    return LocalSweep(sweep, jobs, work)


def check_sweep(sweep: Sweep, online: bool = False, to_come: Sequence[Path] = ()) -> list[Problem]:
    """What keeps any of the runs from being done, each problem once."""
    found = [problem for job in sweep.jobs for problem in preflight(job, online, to_come)]
    try:
        conflict = sweep.folder.conflict(sweep.runs())
    except ValueError as error:
        conflict = str(error)
    if conflict and not online:
        found.append(sweep.jobs[0].document.problem(("config", "sweep"), conflict))
    return list(dict.fromkeys(found))


def plan(sweep: Sweep) -> list[str]:
    """The runs as a table; of those that have not said how they ended, what the machine or the cluster knows."""
    runs, folder, queue = sweep.runs(), sweep.folder, Queue()
    places = {run.index: folder.run_folder(run.index) for run in runs if folder.state(run) == states.RUNNING}
    found = {index: standing(place, queue) for index, place in places.items()}
    known = {index: each.state for index, each in found.items() if each is not None}
    return [f"sweep '{sweep.name}' of {len(runs)} runs in {folder.path}", *outcome(sweep, runs, known)]


def outcome(sweep: Sweep, runs: Sequence[Run], known: Mapping[int, str] | None = None) -> list[str]:
    """How far each run is, as a table."""
    keys = list(dict.fromkeys(key for run in runs for key in run.values))
    rows = [
        [
            str(run.index),
            *(brief(run.values[key]) if key in run.values else "" for key in keys),
            (known or {}).get(run.index) or sweep.folder.state(run),
        ]
        for run in runs
    ]
    return format_table(["run", *keys, "state"], rows)


def print_notices(sweep: Sweep) -> None:
    """What is to be said about the config, once for all runs."""
    for notice in sweep.notices:
        print(f"note: {notice}")


def _array(sweep: Sweep) -> tuple[Array, list[str]]:
    """Write the runs down; what has to be submitted, and the ids of what was before and has not ended."""
    runs = sweep.runs()
    queue = Queue()
    tasks = [task for entry in submissions(sweep.folder.path) for task in queue.tasks(entry["job_id"])]
    busy = {int(task.job_id.rpartition("_")[2]) for task in tasks}
    done = {run.index for run in runs if sweep.folder.state(run) == states.DONE}
    todo = [run.index for run in runs if run.index not in busy | done]
    # a run that is at work keeps the config that it began with
    sweep.folder.write(sweep.name, runs, todo)
    print_notices(sweep)
    if len(todo) < len(runs):
        known = dict.fromkeys(busy - done, QUEUED) | dict.fromkeys(todo, "submitted again")
        print("\n".join(outcome(sweep, runs, known)), flush=True)
    return sweep.array(todo), sorted({task.job_id.partition("_")[0] for task in tasks})
