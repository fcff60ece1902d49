"""What SLURM knows of jobs: those that wait or run, and for a while those that have ended.

Its programs print what is asked for in fields, so that neither JSON nor accounting has to be configured.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.launch.slurm import SlurmError, call, said_by

TIMEOUT_S = 30
FIELDS = "%i|%T|%r|%N|%S"
FIELD = re.compile(r"(?:^|\s)(JobState|Reason|NodeList|StartTime|ExitCode|StdOut|Restarts)=(\S*)")


@dataclass(frozen=True)
class Entry:
    """One job, in SLURM's words."""

    job_id: str
    """Of a task of an array, `12_3`."""
    state: str
    reason: str = ""
    nodes: str = ""
    start: str = ""
    """When it starts, if that is known, or started."""
    exit_code: str = ""
    """`code:signal`; empty while it is not known."""
    log: str = ""
    restarts: str = ""


class Queue:
    """Asks SLURM once for all jobs of the user, and then for each that was not among them."""

    def __init__(self) -> None:
        self._listed: dict[str, Entry] | None = None
        self.answers = True
        """Whether there is a SLURM here that answers; known after the first question."""

    def at_hand(self, job_id: str) -> Entry | None:
        """What is known of a job of the user that waits or runs."""
        return self._all().get(job_id)

    def find(self, job_id: str) -> Entry | None:
        """What is known of a job; None: nothing any more."""
        entry = self.at_hand(job_id)
        if entry is None and self.answers:
            return show(job_id) or _account(job_id)
        return entry

    def tasks(self, array_id: str) -> list[Entry]:
        """The tasks of an array that wait or run."""
        return [entry for job_id, entry in self._all().items() if job_id.startswith(f"{array_id}_")]

    def _all(self) -> dict[str, Entry]:
        if self._listed is None:
            self._listed = self._list()
        return self._listed

    def _list(self) -> dict[str, Entry]:
        text = _ask(["squeue", "--noheader", "--array", "--me", f"--format={FIELDS}"])
        self.answers = text is not None
        rows = [line.strip().split("|") for line in (text or "").splitlines()]
        return {row[0]: Entry(*(_known(cell) for cell in row)) for row in rows if len(row) == 5}


def scancel(job_id: str, *options: str) -> str:
    """End a job, or with `--signal` send its processes a signal; returns what SLURM has against it."""
    try:
        done = call(["scancel", *options, job_id], TIMEOUT_S)
    except SlurmError as error:
        return str(error)
    return said_by(done) if done.returncode else ""


def show(job_id: str) -> Entry | None:
    """What the controller knows, which remembers a job for some minutes after its end."""
    lines = (_ask(["scontrol", "show", "job", "--oneliner", job_id]) or "").splitlines()
    if len(lines) != 1:
        return None
    found = {name: _known(value) for name, value in FIELD.findall(lines[0])}
    return Entry(
        job_id,
        found.get("JobState", ""),
        found.get("Reason", ""),
        found.get("NodeList", ""),
        found.get("StartTime", ""),
        found.get("ExitCode", ""),
        found.get("StdOut", ""),
        found.get("Restarts", ""),
    )


def _account(job_id: str) -> Entry | None:
    """Where a cluster keeps accounts, they know jobs for long."""
    fields = "State,Reason,NodeList,Start,ExitCode"
    text = _ask(["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job_id}", f"--format={fields}"])
    row = (text or "").strip().splitlines()[-1:]
    cells = row[0].split("|") if row else []
    if len(cells) != 5:
        return None
    state, *others = (_known(cell) for cell in cells)
    return Entry(job_id, state.partition(" ")[0], *others)  # "CANCELLED by 1000"


def _ask(command: Sequence[str]) -> str | None:
    """What a program prints; None if it is not there, fails or takes too long."""
    try:
        result = call(command, TIMEOUT_S, {**os.environ, "SLURM_TIME_FORMAT": "standard"})
    except SlurmError:
        return None
    return None if result.returncode else result.stdout


def _known(text: str) -> str:
    return "" if text in {"None", "N/A", "(null)", "Unknown", "None assigned"} else text
