"""Which runs there are, and which one a user means: a folder, a name below output, the id of a SLURM job."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from toolkit.launch.queue import show
from toolkit.launch.record import BACKGROUND, STATUS, SUBMISSIONS, read_background, read_status, submissions
from toolkit.launch.sweep import is_sweep_folder

OUTPUT = Path("output")
DEPTH = 3
"""A run is `output/NAME`; of a sweep, `output/NAME/INDEX`, or in that a folder that its process names."""
JOB_ID = re.compile(r"\d+(_\d+)?")


class NoSuchRun(ValueError):
    """What was asked for is no run."""


def is_run(folder: Path) -> bool:
    """Whether something in the folder tells of a run."""
    return any((folder / name).exists() for name in (STATUS, BACKGROUND, SUBMISSIONS))


def find_runs(root: Path = OUTPUT) -> list[Path]:
    """All run folders below `root`, by name."""
    if not root.is_dir():
        return []
    found = [path for depth in range(1, DEPTH + 1) for path in root.glob("/".join("*" * depth)) if path.is_dir()]
    return sorted((path for path in found if not path.name.startswith(".") and is_run(path)), key=_by_number)


def named_runs(names: Sequence[str]) -> list[Path]:
    """The runs that a user names; without names all below output. Raises NoSuchRun."""
    if not names:
        return find_runs()
    return [folder for name in names for folder in _named(name)]


def named_run(name: str) -> Path:
    """The one run that a user names. Raises NoSuchRun."""
    found = _named(name)
    if len(found) > 1:
        raise NoSuchRun(f"{name} holds {len(found)} runs, say which one: {', '.join(map(str, found))}")
    return found[0]


def log_files(folder: Path) -> list[Path]:
    """The logs of a run, the one that was written to last at the end."""
    found = set((folder / "slurm").glob("slurm-*.out"))
    ids = [str(read_status(folder).get("job_id") or ""), *(entry["job_id"] for entry in submissions(folder))]
    found |= {path for job_id in ids if "_" in job_id for path in folder.parent.glob(f"slurm/slurm-{job_id}.out")}
    # the runs of a sweep in the background write into its log
    for place in (folder, folder.parent) if is_sweep_folder(folder.parent) else (folder,):
        if log := read_background(place).get("log"):
            found.add(Path(log))
    return sorted((path for path in found if path.is_file()), key=lambda path: path.stat().st_mtime_ns)


def _named(name: str) -> list[Path]:
    for folder in (Path(name), OUTPUT / name):
        if is_run(folder):
            return [folder]
        if below := find_runs(folder):
            return below
    if JOB_ID.fullmatch(name) and (run := _of_job(name)) is not None:
        return [run]
    known = [str(path.relative_to(OUTPUT)) for path in find_runs()]
    near = get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]}?" if near else f" (known: {', '.join(known)})"
    if not known:
        hint = f", where no run was begun yet: name its folder, or call this in the folder that holds {OUTPUT}"
    raise NoSuchRun(f"there is no run {name}, neither as a folder nor below {OUTPUT}{hint}")


def _of_job(job_id: str) -> Path | None:
    """The run folder of a cluster job."""
    for run in find_runs():
        ids = [str(read_status(run).get("job_id")), *(entry["job_id"] for entry in submissions(run))]
        if job_id in ids:
            return run
    # a run elsewhere: its log is in <run folder>/slurm
    entry = show(job_id)
    folder = Path(entry.log).parent.parent if entry is not None and entry.log else None
    return folder if folder is not None and is_run(folder) else None


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Run 10 of a sweep comes after run 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in path.parts]
