"""`aitk status`: which runs there are, how far they are, how they ended."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import AsJson
from toolkit.launch.queue import Queue
from toolkit.launch.runs import OUTPUT, NoSuchRun, log_files, named_runs
from toolkit.launch.standing import Standing, standing
from toolkit.reporting.device_memory import format_bytes

DONE, BAD_USE = 0, 2
HEADER = ("RUN", "STATE", "STEP", "S/STEP", "LEFT", "MEMORY", "SAVED", "HEARD", "WHERE")
EVERY_S, CLUSTER_EVERY_S = 2.0, 10.0
CLEAR = "\x1b[H\x1b[2J"


def status(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="A run folder, a name below output, or the id of a SLURM job."),
    ] = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again, until ctrl+c.")] = False,
) -> None:
    """Without a name, all runs below the folder output. SAVED is the step of the newest checkpoint, HEARD how long ago
    the run last wrote how far it is, LEFT how long the other steps take.
    """
    try:
        while True:
            found = _look(runs or [])
            text = json.dumps([_fields(each) for each in found], indent=2) if as_json else "\n".join(table(found))
            print((CLEAR if watch and sys.stdout.isatty() else "") + text, flush=True)
            if not watch:
                break
            time.sleep(CLUSTER_EVERY_S if any(each.job_id for each in found) else EVERY_S)
    except KeyboardInterrupt:
        pass
    except NoSuchRun as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD_USE) from None


def table(found: Sequence[Standing]) -> list[str]:
    """The runs as lines in columns, each with its reason below it."""
    if not found:
        return [f"there are no runs below {OUTPUT}; `aitk status FOLDER` looks elsewhere"]
    rows = [HEADER, *(_row(each) for each in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    below = ["", *(each.reason for each in found)]
    return [text for line, reason in zip(lines, below, strict=True) for text in (line, f"  {reason}") if text.strip()]


def _look(names: Sequence[str]) -> list[Standing]:
    queue = Queue()
    found = [standing(folder, queue) for folder in named_runs(names)]
    return [each for each in found if each is not None]


def _row(run: Standing) -> tuple[str, ...]:
    step = "-" if run.step is None else f"{run.step}/{run.total}"
    pace = f"{run.seconds_per_step:.2f}" if run.seconds_per_step and run.state == "running" else "-"
    left = "-" if run.seconds_left is None else _clock(run.seconds_left)
    memory = format_bytes(run.memory_bytes) if run.memory_bytes and run.state == "running" else "-"
    saved = "-" if run.checkpoint is None else str(run.checkpoint)
    heard = "-" if run.updated is None else _age(time.time() - run.updated)
    return _name(run.folder), run.state, step, pace, left, memory, saved, heard, run.where


def _name(folder: Path) -> str:
    return str(folder.relative_to(OUTPUT)) if folder.is_relative_to(OUTPUT) else str(folder)


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def _fields(run: Standing) -> dict[str, object]:
    logs = log_files(run.folder)
    fields = {**asdict(run), "folder": str(run.folder), "seconds_left": run.seconds_left}
    return {"name": _name(run.folder), **fields, "log": str(logs[-1]) if logs else None}
