"""How a run stands: its own record, set against what the machine or SLURM knows of its process."""

from __future__ import annotations

import math
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from toolkit.launch.queue import Entry, Queue
from toolkit.launch.reasons import ended, waits
from toolkit.launch.record import SILENT_S, is_live, read_background, read_status, submissions, was_cancelled
from toolkit.launch.runs import find_runs
from toolkit.launch.sweep import is_sweep_folder, tally

WAITING = {"PENDING", "REQUEUED", "CONFIGURING", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
WORKING = {"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED", "RESIZING"}
PROGRESS = ("step", "total", "seconds_per_step", "checkpoint", "memory_bytes", "updated")
OVER = {"done", "failed", "stopped", "lost"}


@dataclass(frozen=True)
class Standing:
    """What is known of a run."""

    folder: Path
    state: str
    """waiting, starting, running, ending, or how it ended: done, stopped, failed, lost."""
    where: str
    """`process 123`, `process 123 on host`, `SLURM 12 on n1`."""
    reason: str = ""
    """Why it waits or how it ended, and what to do."""
    job_id: str | None = None
    """Of the cluster."""
    pid: int | None = None
    host: str | None = None
    step: int | None = None
    total: int | None = None
    seconds_per_step: float | None = None
    checkpoint: int | None = None
    """Step of the newest save."""
    memory_bytes: int | None = None
    """The most that it took of its GPU, or what it takes of the RAM where there is none."""
    updated: float | None = None
    """When the run was last heard of, in seconds since 1970."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it by itself."""
        return self.state in OVER

    @property
    def seconds_left(self) -> float | None:
        """How long the steps that are left take; of a run that works."""
        if self.state != "running" or self.step is None or self.total is None or not self.seconds_per_step:
            return None
        return math.ceil((self.total - self.step) * self.seconds_per_step)


def standing(folder: Path, queue: Queue) -> Standing | None:
    """How the run in a folder stands; None if there is no run."""
    own, background, jobs = read_status(folder), read_background(folder), submissions(folder)
    submitted, sent = (float(jobs[-1].get("time", 0)) if jobs else 0.0), float(background.get("began", 0))
    began = float(own.get("began", 0))
    if jobs and is_sweep_folder(folder):
        return _of_array(folder, [entry["job_id"] for entry in jobs], queue)
    if jobs and submitted >= max(sent, 0.0 if own.get("job_id") else began):
        return _on_cluster(folder, str(jobs[-1]["job_id"]), own, queue)
    if own.get("job_id") and began >= sent:
        return _on_cluster(folder, str(own["job_id"]), own, queue)
    if own and (own["pid"] == background.get("pid") or began >= sent):
        return _of_process(folder, own)
    return _not_begun(folder, background) if background else None


def _of_array(folder: Path, job_ids: Sequence[str], queue: Queue) -> Standing:
    """A sweep on a cluster, as the sum of its runs."""
    waiting = [task for job_id in job_ids for task in queue.tasks(job_id) if task.state in WAITING]
    begun = [found for path in find_runs(folder) if (found := standing(path, queue)) is not None]
    states = Counter(run.state for run in begun if run.state != "waiting")
    states["waiting"] = len(waiting)
    order = ("running", "starting", "ending", "waiting", "lost", "failed", "stopped", "done")
    counts = [(state, states[state]) for state in order if states[state]]
    state = counts[0][0] if counts else "stopped"
    reason = ", ".join(f"{count} {name}" for name, count in counts) or "no run has begun"
    return Standing(folder, state, f"SLURM {job_ids[-1]}", reason, job_ids[-1])


def _on_cluster(folder: Path, job_id: str, own: Mapping[str, Any], queue: Queue) -> Standing:
    own = own if own.get("job_id") == job_id else {}
    said = str(own.get("state", ""))
    entry = queue.at_hand(job_id) if said in OVER else queue.find(job_id)
    if entry is None and said not in OVER:
        state, reason = _unknown_to_cluster(folder, job_id, own, queue)
    elif entry is None or (said in OVER and entry.state not in WAITING | WORKING):
        state, reason = said, str(own.get("reason", ""))
    elif entry.state in WAITING:
        again = "started again, goes on from its last save" if said == "requeued" else ""
        state, reason = "waiting", "; ".join(text for text in (again, waits(entry)) if text)
    elif entry.state in WORKING:
        state, reason = _at_work(entry, said, own)
    elif entry.state == "COMPLETED":
        state, reason = "done", ""
    else:
        state = "stopped" if entry.state == "CANCELLED" else "failed"
        reason = ended(entry) + _from_here(own)
    pid, host = own.get("pid"), own.get("host")
    return Standing(folder, state, _place(job_id, entry), reason, job_id, pid, host, **_progress(own))


def _at_work(entry: Entry, said: str, own: Mapping[str, Any]) -> tuple[str, str]:
    """A run ends some seconds before its job, and begins some seconds after it."""
    if said == "running":
        return "running", _silence(own)
    if not own or (entry.start and _seconds(entry.start) > float(own["updated"])):
        return "starting", ""
    return "ending", str(own.get("reason", ""))


def _unknown_to_cluster(folder: Path, job_id: str, own: Mapping[str, Any], queue: Queue) -> tuple[str, str]:
    if not queue.answers:
        return str(own.get("state", "waiting")), "SLURM does not answer here; this is what the run wrote last"
    if not own and was_cancelled(folder, job_id):
        return "stopped", "cancelled before it began"
    return "lost", "SLURM does not know the job any more, and the run did not say how it ended" + _from_here(own)


def _of_process(folder: Path, own: Mapping[str, Any]) -> Standing:
    state, reason = str(own["state"]), str(own.get("reason", ""))
    if state == "running":
        reason = _silence(own)
        if own["host"] == socket.gethostname() and not is_live(own):
            state = "lost"
            reason = "the process is gone without a word: killed, out of RAM, or the machine went down"
            reason += _from_here(own)
    if is_sweep_folder(folder):
        reason = "; ".join(text for text in (tally(folder, is_over=state in OVER), reason) if text)
    return Standing(folder, state, _machine(own), reason, pid=own["pid"], host=own["host"], **_progress(own))


def _not_begun(folder: Path, background: Mapping[str, Any]) -> Standing:
    """A process in the background that has not got to this run."""
    log = f"see {background.get('log', 'its log')}"
    state, reason = ("starting", "") if is_live(background) else ("failed", f"ended before it began; {log}")
    where = _machine(background)
    return Standing(folder, state, where, reason, pid=background["pid"], host=str(background.get("host")))


def _progress(own: Mapping[str, Any]) -> dict[str, Any]:
    return {key: own.get(key) for key in PROGRESS}


def _machine(process: Mapping[str, Any]) -> str:
    elsewhere = "" if process.get("host") == socket.gethostname() else f" on {process.get('host')}"
    return f"process {process['pid']}{elsewhere}"


def _place(job_id: str, entry: Entry | None) -> str:
    return f"SLURM {job_id}" + (f" on {entry.nodes}" if entry is not None and entry.nodes else "")


def _seconds(time_of_day: str) -> float:
    try:
        return datetime.fromisoformat(time_of_day).timestamp()
    except ValueError:
        return 0.0


def _silence(own: Mapping[str, Any]) -> str:
    age = time.time() - float(own.get("updated", 0))
    return f"nothing was heard of it for {age / 60:.0f} minutes; see its log" if age > SILENT_S else ""


def _from_here(own: Mapping[str, Any]) -> str:
    saved = own.get("checkpoint")
    return "" if saved is None else f"; the same command goes on from step {saved}"
