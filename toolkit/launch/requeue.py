"""What a job on a cluster does when it was stopped before its end: ask for another start, if that makes sense."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.launch.environment import on_cluster, own_rank, stop_signals
from toolkit.launch.json_files import add_line, read_group, read_lines
from toolkit.launch.queue import Entry, show
from toolkit.launch.record import SUBMISSIONS, close, was_cancelled
from toolkit.launch.slurm import SlurmError, own_job, requeue, submit_again

TEMPORARY = 75
"""EX_TEMPFAIL of sysexits.h: not done, and nothing is wrong; jobs that wait for this one do not begin."""
PATIENCE_S = 60.0
"""How long SLURM may take to end a process whose job it starts again."""
FIRST_S = 20.0
"""How long another rank waits for the first to do it, which ends the others as well."""
STARTS = "slurm/starts.jsonl"
STOP_FILE = "stop"
"""A file of this name in the run folder stops a run for good; see `toolkit/trainer/stop_files.py`."""


def note_start(env: Mapping[str, str]) -> None:
    """Write down how far the run is at the beginning of a start."""
    if on_cluster(env) and own_rank(env) == 0 and "AITK_RUN_FOLDER" in env:
        add_line(_run_folder(env) / STARTS, {"job_id": own_job(env), "time": time.time(), "progress": progress(env)})


def after_stop(env: Mapping[str, str], together: bool = True) -> int:
    """Have the job started again; returns the exit code of this process.

    Ranks other than the first leave quietly: a bad exit of theirs would end the first before it has saved. Where they
    have not stopped `together`, the first may be waiting for one of them and hear nothing: they do it in its place.
    """
    for number in stop_signals(env):
        signal.signal(number, signal.SIG_IGN)
    if own_rank(env) > 0:
        if together:
            _wait_for_first(env)
        _clear_disk(env)
        if together:
            return 0
        time.sleep(FIRST_S)
    told = why_not(env)
    if not told:
        close(_run_folder(env), "requeued")
        told = _start_again(env)
    if told:
        close(_run_folder(env), "stopped", f"it stopped, and is not started again: {told}")
        print(f"the job is not started again: {told}", flush=True)
    elif "AITK_AGAIN" not in env:
        # SLURM ends this process by this signal
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(PATIENCE_S)
    if "TORCHELASTIC_RUN_ID" in env:
        _end_mark(env).touch()
    return TEMPORARY


def why_not(env: Mapping[str, str]) -> str:
    """Why another start makes no sense; empty if it does."""
    folder = _run_folder(env)
    if was_cancelled(folder, own_job(env)):
        return "it was cancelled"
    if (folder / STOP_FILE).exists():
        return f"the file {folder / STOP_FILE} asked it to stop"
    found, restarts = _own_entry(env), int(env.get("SLURM_RESTART_COUNT", "0"))
    if found.state in {"COMPLETING", "CANCELLED"} and found.reason != "TimeLimit":
        # a requeue would bring a cancelled job back; one that was preempted is started again by SLURM, if at all
        return "SLURM has ended it (cancelled or preempted)"
    if found.state == "RUNNING" and int(found.restarts or 0) > restarts:
        return "SLURM has declared this machine lost, and started it again on another one"
    most = int(env.get("AITK_MAX_REQUEUES", "0"))
    starts = [start for start in read_lines(folder / STARTS) if "progress" in start]
    if most == 0:
        return "launch.requeue is false, or launch.max_requeues 0"
    if max(restarts, len(starts) - 1) >= most:
        return f"it was {most} times (launch.max_requeues)"
    if starts and "AITK_PROGRESS" in env and starts[-1]["progress"] == progress(env):
        return (
            "this start made no progress; see the log, and whether launch.time has room for loading, and "
            "launch.signal_lead_s for a save"
        )
    return ""


def progress(env: Mapping[str, str]) -> dict[str, Any]:
    """How far the run is: the newest saved step of each trainer, and the size of what is cached and otherwise made."""
    folders, filled = _folders(env, "AITK_PROGRESS"), _folders(env, "AITK_FILLED")
    caches = (
        {Path(env["AITK_CACHE"])} if env.get("AITK_CACHE") else {folder.parent / ".aitk_cache" for folder in folders}
    )
    return {
        "steps": [_newest_step(folder) for folder in folders],
        "cached": sum(map(_num_bytes, sorted(caches))),
        "filled": sum(map(_num_bytes, filled)),
    }


def forget_starts(run_folder: Path) -> None:
    """What is submitted by hand has all its starts before it, and may fail to make progress in the first."""
    (run_folder / STARTS).unlink(missing_ok=True)


def _start_again(env: Mapping[str, str]) -> str:
    """Ask SLURM for another start, of this job or of another one after it; returns why there is none."""
    refusal = ""
    try:
        if "AITK_AGAIN" in env:
            Path(env["AITK_AGAIN"]).touch()
        else:
            refusal = requeue(env)
    except SlurmError as error:
        refusal = str(error)
    # a job whose machine was declared lost is in the queue again before its processes have ended
    if not refusal or _own_entry(env).state == "PENDING":
        print("the job is started again and goes on there", flush=True)
        return ""
    try:
        job_id = submit_again(Path(env["AITK_SCRIPT"]), env)
    except SlurmError as error:
        return f"{refusal}; nor could it be submitted again: {error}"
    previous = own_job(env)
    add_line(_run_folder(env) / SUBMISSIONS, {"job_id": job_id, "time": time.time(), "after": previous})
    return f"{refusal}; it goes on as job {job_id} instead"


def _own_entry(env: Mapping[str, str]) -> Entry:
    """What SLURM knows of the job that this process belongs to; nothing where it does not answer."""
    return show(own_job(env)) or Entry(own_job(env), "")


def _newest_step(folder: Path) -> int:
    try:
        listed = read_group(folder / "checkpoints.json")["checkpoints"]
        return max((int(entry["step"]) for entry in listed), default=0)
    except (ValueError, KeyError, TypeError):
        return 0


def _folders(env: Mapping[str, str], name: str) -> list[Path]:
    return [Path(part) for part in env.get(name, "").split("\n") if part]


def _num_bytes(folder: Path) -> int:
    """The size of all files but those that are being written, or were when a start was cut short."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in (name for name in names if not name.startswith(".")):
            with contextlib.suppress(OSError):  # removed in between
                total += os.stat(os.path.join(place, name)).st_size
    return total


def _wait_for_first(env: Mapping[str, str]) -> None:
    """Under torchrun, which ends badly after a signal and takes all tasks with it, stay until the first is done."""
    if "TORCHELASTIC_RUN_ID" not in env:
        return
    mark = _end_mark(env)
    end = time.monotonic() + float(env.get("AITK_SIGNAL_LEAD_S", "180"))
    while not mark.exists() and time.monotonic() < end:
        time.sleep(0.2)


def _clear_disk(env: Mapping[str, str]) -> None:
    """Remove what the job has put on the disk of a machine other than the first, which the batch script clears.

    SLURM starts nothing more on it that could: the job ends.
    """
    if env.get("LOCAL_RANK") == "0" and env.get("AITK_LOCAL"):
        shutil.rmtree(env["AITK_LOCAL"], ignore_errors=True)


def _end_mark(env: Mapping[str, str]) -> Path:
    """A file that says that the first rank of this start has done all it had to."""
    return _run_folder(env) / "slurm" / f"left-{own_job(env)}-{env.get('SLURM_RESTART_COUNT', '0')}"


def _run_folder(env: Mapping[str, str]) -> Path:
    return Path(env["AITK_RUN_FOLDER"])
