"""What a run tells those who watch it, in files of its folder: how far it is, what was submitted, what became of it.

status.json is the heartbeat of the process that does the work; slurm/jobs.jsonl has a line for each submission to a
cluster; background.json names the process of a run without a terminal. Nobody waits for these files, and a run whose
disk is full goes on without them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from toolkit.launch.alive import birth, is_alive
from toolkit.launch.environment import on_cluster
from toolkit.launch.json_files import read_group, read_lines
from toolkit.launch.slurm import own_job

State = Literal["running", "done", "failed", "stopped", "requeued"]
STATUS, BACKGROUND, SUBMISSIONS, CANCELLED = "status.json", "background.json", "slurm/jobs.jsonl", "slurm/cancelled"
SILENT_S = 900.0
"""A run that was heard of so long ago is worth a look."""


class NamedWork(Protocol):
    """What is asked of a job to know its folder."""

    name: str

    @property
    def processes(self) -> Sequence[Any]:
        """The checked configs."""
        ...


class Record:
    """The heartbeat of this process in one run folder."""

    def __init__(self, folder: Path) -> None:
        """Begin: the run works, and has done no step that is known."""
        self.folder = folder
        before = read_status(folder)
        began = before["began"] if is_own(before) else time.time()
        self._fields: dict[str, Any] = {
            "state": "running",
            "step": None,
            "total": None,
            "seconds_per_step": None,
            "checkpoint": before.get("checkpoint"),
            "memory_bytes": None,
            "reason": "",
            "began": began,
            **_own_process(),
        }
        self.note()

    @property
    def state(self) -> str:
        """What was noted last."""
        return str(self._fields["state"])

    def note(self, **fields: Any) -> None:
        """Write these fields, and when that was."""
        self._fields.update(fields)
        _write(self.folder / STATUS, {**self._fields, "updated": time.time()})


def run_folder(job: NamedWork) -> Path:
    """Where a job's results go: the folder of its first process that has one."""
    for process in job.processes:
        if training_folder := getattr(process, "training_folder", None):
            return Path(training_folder).expanduser() / (process.name or job.name)
    return Path("output") / job.name


def close(folder: Path, state: State, reason: str = "") -> None:
    """Note how the run ended, if this process did it, or one of this machine that is gone and has not said so."""
    fields = read_status(folder)
    is_left = fields.get("state") == "running" and not fields.get("job_id") and fields["host"] == socket.gethostname()
    if is_own(fields) or (is_left and not is_live(fields)):
        _write(folder / STATUS, {**fields, "state": state, "reason": reason, "updated": time.time()})


def read_status(folder: Path) -> dict[str, Any]:
    """The heartbeat; empty if there is none that can be read."""
    return _read(folder / STATUS)


def read_background(folder: Path) -> dict[str, Any]:
    """The process that was sent to the background for this folder: pid, birth, host, began, log."""
    return _read(folder / BACKGROUND)


def write_background(folder: Path, pid: int, log: Path) -> None:
    """Note that the process `pid` of this machine does the run, and writes to `log`."""
    process = {"pid": pid, "birth": birth(pid), "host": socket.gethostname()}
    _write(folder / BACKGROUND, {**process, "began": time.time(), "log": str(log)})


def submissions(folder: Path) -> list[dict[str, Any]]:
    """What was submitted to a cluster for this folder, oldest first: job_id, time and more."""
    try:
        found = read_lines(folder / SUBMISSIONS)
    except OSError:
        return []
    return [{**entry, "job_id": str(entry["job_id"])} for entry in found if "job_id" in entry]


def mark_cancelled(folder: Path, job_id: str) -> None:
    """Note that a cluster job is to stop for good: having saved, it does not ask for another start."""
    path = folder / CANCELLED
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(job_id, encoding="utf-8")


def was_cancelled(folder: Path, job_id: str) -> bool:
    """Whether `mark_cancelled` said so of this job."""
    try:
        return (folder / CANCELLED).read_text(encoding="utf-8").strip() == job_id
    except OSError:
        return False


def is_live(process: Mapping[str, Any]) -> bool:
    """Whether what a status.json or background.json names may still be at work."""
    if not process or process.get("state", "running") != "running":
        return False
    if process.get("host") == socket.gethostname():
        return is_alive(int(process["pid"]), str(process.get("birth", "")))
    return time.time() - float(process.get("updated", process.get("began", 0))) < SILENT_S


def is_own(process: Mapping[str, Any]) -> bool:
    """Whether a status.json was begun by this process."""
    own = _own_process()
    return bool(process) and all(process.get(key) == own[key] for key in ("pid", "birth", "host"))


def _own_process() -> dict[str, Any]:
    job_id = own_job(os.environ) if on_cluster(os.environ) else None
    return {"pid": os.getpid(), "birth": birth(os.getpid()), "host": socket.gethostname(), "job_id": job_id}


def _read(path: Path) -> dict[str, Any]:
    fields = read_group(path)
    return fields if isinstance(fields.get("pid"), int) else {}


def _write(path: Path, fields: Mapping[str, Any]) -> None:
    """Replace a small file at once, without waiting for the disk: the next heartbeat is seconds away."""
    # a name that `remove_leftovers` clears away, should this be killed halfway
    temporary = path.with_name(f".aitk-tmp-{secrets.token_hex(6)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(fields) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
