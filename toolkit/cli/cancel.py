"""`aitk cancel`: has runs save and stop, whether a cluster or this machine does them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import Annotated

import typer

from toolkit.launch.queue import Queue, scancel
from toolkit.launch.record import close, is_live, mark_cancelled, read_background, read_status, submissions
from toolkit.launch.runs import NoSuchRun, find_runs, named_runs
from toolkit.launch.standing import Standing, standing
from toolkit.launch.sweep import is_sweep_folder

DONE, FAILED, BAD_USE = 0, 1, 2
END_S = 2.0
"""How long a process that has nothing to save may take to end."""
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class NotCancelled(RuntimeError):
    """Why a run goes on."""


def cancel(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="A run folder, a name below output, or the id of a SLURM job."),
    ],
    at_once: Annotated[bool, typer.Option("--now", help="Do not wait until it has saved.")] = False,
) -> None:
    """A run that trains finishes its step, saves and ends; the same command goes on from there. A job on a cluster is
    not started again.

    Exit codes: 0 done or nothing to do, 1 a run could not be stopped, 2 there is no such run.
    """
    queue = Queue()
    try:
        folders = named_runs(runs)
    except NoSuchRun as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD_USE) from None
    code = DONE
    for folder in folders:
        run = standing(folder, queue)
        try:
            print(f"{folder}: {'nothing was started' if run is None else stop(run, at_once)}")
        except NotCancelled as error:
            print(f"{folder}: {error}", file=sys.stderr)
            code = FAILED
    raise typer.Exit(code)


def stop(run: Standing, at_once: bool = False) -> str:
    """Have a run end; returns what was done. Raises NotCancelled."""
    if run.is_over:
        return f"has ended already ({run.state})"
    if run.job_id and is_sweep_folder(run.folder):
        return _stop_array(run, run.job_id, at_once)
    return _stop_job(run, run.job_id, at_once) if run.job_id else _stop_process(run, at_once)


def _stop_array(run: Standing, job_id: str, at_once: bool) -> str:
    """No further run of a sweep begins, of earlier arrays either; those that have begun are told one by one."""
    for entry in submissions(run.folder):
        scancel(entry["job_id"], "--state=PENDING")
    queue = Queue()
    tasks = [standing(folder, queue) for folder in find_runs(run.folder)]
    said = [f"  {task.folder}: {stop(task, at_once)}" for task in tasks if task is not None and not task.is_over]
    return "\n".join([f"no further run of SLURM array {job_id} begins", *said])


def _stop_job(run: Standing, job_id: str, at_once: bool) -> str:
    mark_cancelled(run.folder, job_id)
    can_save = run.state == "running" and run.step is not None and not at_once
    # the signal goes to the processes of the job only, and nothing ends them before they have saved
    if problem := scancel(job_id, *(["--signal=TERM"] if can_save else [])):
        raise NotCancelled(f"SLURM did not cancel job {job_id}: {problem}")
    if can_save:
        return f"SLURM job {job_id} was told to save and stop at step {run.step}; `aitk cancel --now` ends it at once"
    return f"SLURM job {job_id} is cancelled"


def _stop_process(run: Standing, at_once: bool) -> str:
    pid = run.pid
    if pid is None or run.host != socket.gethostname():
        raise NotCancelled(f"it runs on {run.host}; call `aitk cancel` there")
    if not _is_this(run, pid):
        raise NotCancelled(f"process {pid} is not this run any more")
    try:
        os.kill(pid, KILL if at_once else signal.SIGTERM)  # a trainer saves before it ends
    except PermissionError:
        raise NotCancelled(f"process {pid} belongs to another user") from None
    except ProcessLookupError:
        return "has just ended"
    if _is_gone(run, pid):
        close(run.folder, "stopped", "cancelled; what was saved before is complete")
        return f"process {pid} has ended: {read_status(run.folder).get('reason') or 'it had not begun'}"
    step = f" at step {run.step}" if run.step is not None else ""
    return f"process {pid} was told to save and stop{step}; `aitk cancel --now` ends it at once"


def _is_this(run: Standing, pid: int) -> bool:
    """Whether the process is there, and is the one that does the run."""
    noted = (read_status(run.folder), read_background(run.folder))
    return any(each.get("pid") == pid and is_live(each) for each in noted)


def _is_gone(run: Standing, pid: int) -> bool:
    """Whether the process ends at once."""
    end = time.monotonic() + END_S
    while _is_this(run, pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not _is_this(run, pid)
