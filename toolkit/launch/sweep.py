"""The folder of a sweep: which runs it has, the config of each, and how far each is.

`<folder>/sweep.json` lists the runs; `<folder>/<index>/` is the folder of a run, in which `job.yaml` is its config and
`point.json` says how its last start ended. Whoever does a run writes the latter: this machine, or a task on a cluster.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.atomic import write_text
from toolkit.launch.environment import own_rank
from toolkit.launch.json_files import read_group
from toolkit.run_lock import hold

SWEEP_FILE, JOB_FILE, POINT_FILE = "sweep.json", "job.yaml", "point.json"
DONE, STOPPED, FAILED, RUNNING, NOT_STARTED = "done", "stopped", "failed", "running", "not started"
ENDS = {0: DONE, 75: STOPPED, 130: STOPPED}
"""Exit code -> state; any other one is that of a failure."""


@dataclass(frozen=True)
class Run:
    """One run of a sweep, ready to be written down."""

    index: int
    values: Mapping[str, Any]
    text: str
    """Its config."""

    @property
    def label(self) -> str:
        """Its values in one line."""
        return label(self.values)


@dataclass(frozen=True)
class SweepFolder:
    """What lies in the folder of a sweep."""

    path: Path

    def run_folder(self, index: int) -> Path:
        """The folder of a run."""
        return self.path / str(index)

    def config_path(self, index: int) -> Path:
        """The config of a run."""
        return self.run_folder(index) / JOB_FILE

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep others of this machine from doing the same runs; RunFolderBusy says who is at work."""
        with hold(self.path / ".aitk.lock"):
            yield

    def write(self, name: str, runs: Sequence[Run], begun: Sequence[int]) -> None:
        """Write the list of runs, and the configs of those that are `begun`; call `conflict` before."""
        for run in runs:
            if run.index in begun:
                write_text(self.config_path(run.index), run.text)
        listed = [{"index": run.index, "values": dict(run.values)} for run in runs]
        text = json.dumps({"version": 1, "name": name, "runs": listed}, indent=2, default=str)
        write_text(self.path / SWEEP_FILE, text + "\n")

    def values(self) -> dict[int, dict[str, Any]]:
        """Index -> values of each run; empty where no sweep was. Raises ValueError if the file is damaged."""
        file = self.path / SWEEP_FILE
        if not file.is_file():
            return {}
        try:
            return {run["index"]: run["values"] for run in json.loads(file.read_text(encoding="utf-8"))["runs"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error}); remove it if the runs beside it are to go on") from error

    def conflict(self, runs: Sequence[Run]) -> str:
        """Why these runs cannot go on in this folder: other ones have begun there; empty if they can."""
        before = self.values()
        for run in runs:
            old = before.get(run.index)
            if old is not None and self.run_folder(run.index).exists() and _plain(old) != _plain(run.values):
                return (
                    f"{self.run_folder(run.index)} holds the run with {label(old)}, which the sweep gives another "
                    f"number, or not at all; give the sweep another name, or remove {self.path}"
                )
        return ""

    def state(self, run: Run) -> str:
        """How far a run is; one that is done counts only with the config that it was done with."""
        found = read_group(self.run_folder(run.index) / POINT_FILE)
        state = str(found.get("state", NOT_STARTED))
        return NOT_STARTED if state == DONE and found.get("config") != digest(run.text) else state


def record(folder: Path, state: str, text: str | None = None) -> None:
    """Write down how far the run in `folder` is; `text` is its config, if not that of job.yaml."""
    text = (folder / JOB_FILE).read_text(encoding="utf-8") if text is None else text
    entry = {"state": state, "time": round(time.time(), 3), "config": digest(text)}
    write_text(folder / POINT_FILE, json.dumps(entry) + "\n")


def state_after(code: int) -> str:
    """The state of a run whose last start had this exit code."""
    return ENDS.get(code, FAILED)


def record_own(config: str, env: Mapping[str, str], state: str) -> None:
    """Write down how far a run is, if this process does one of a sweep: its config is the one in the sweep's folder."""
    path = Path(config)
    if path.name == JOB_FILE and is_sweep_folder(path.parent.parent) and own_rank(env) == 0:
        record(path.parent, state)


def state_in(folder: Path) -> str:
    """How the last start of the run in `folder` ended; "" if it is none of a sweep."""
    return str(read_group(folder / POINT_FILE).get("state", ""))


def tally(folder: Path, is_over: bool) -> str:
    """How many runs of a sweep on this machine are how far: `1 failed, 3 done`."""
    indices = [run["index"] for run in read_group(folder / SWEEP_FILE).get("runs", [])]
    states = Counter(state_in(folder / str(index)) or NOT_STARTED for index in indices)
    # nobody is left to say how it ended
    states["lost"] = states.pop(RUNNING, 0) if is_over else 0
    order = (RUNNING, "lost", FAILED, STOPPED, DONE, NOT_STARTED)
    return ", ".join(f"{states[state]} {state}" for state in order if states[state])


def label(values: Mapping[str, Any]) -> str:
    """Values in one line: `train.lr=0.0001 network.linear=8`."""
    return " ".join(f"{key}={brief(value)}" for key, value in values.items())


def brief(value: Any) -> str:
    """A value as it is shown in a table."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "-"}[value]
    if isinstance(value, float):
        text = f"{value:.6g}"
        mantissa, e, exponent = text.partition("e")
        return f"{mantissa}e{int(exponent)}" if e else text
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:18] + "..." + text[-19:]


def digest(text: str) -> str:
    """A fingerprint of a config."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(values: Mapping[str, Any]) -> Any:
    """As they come back from a file."""
    return json.loads(json.dumps(dict(values), default=str))


def is_sweep_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a sweep was run in this folder."""
    return (Path(path) / SWEEP_FILE).is_file()
