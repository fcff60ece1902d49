"""`aitk logs`: what a run without a terminal prints, over all its starts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from toolkit.launch.queue import Queue
from toolkit.launch.runs import NoSuchRun, log_files, named_run
from toolkit.launch.standing import Standing, standing

DONE, BAD_USE = 0, 2
POLL_S = 0.3
ASK_S, ASK_CLUSTER_S = 1.0, 10.0
"""How often to ask whether a run that prints nothing has ended."""


def logs(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder, a name below output, or the id of a SLURM job.")
    ],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends, over all starts.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Begin with so many of the last lines.")] = 40,
) -> None:
    """ctrl+c ends the showing, not the run."""
    try:
        folder = named_run(run)
    except NoSuchRun as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD_USE) from None
    files = log_files(folder)
    if not files and not follow:
        print(_why_nothing(standing(folder, Queue())), file=sys.stderr)
        raise typer.Exit(DONE)
    try:
        if follow:
            for text in followed(folder, lines):
                print(text, end="", flush=True)
        else:
            print(last_lines(files[-1].read_text(encoding="utf-8", errors="replace"), lines), end="")
    except KeyboardInterrupt:
        pass


def followed(folder: Path, lines: int) -> Iterator[str]:
    """The end of the newest log and what comes after it, in later logs too, until the run has ended."""
    current, position = None, 0
    asked, over = time.monotonic(), None
    while True:
        files = log_files(folder)
        if current is None and files:
            current = files[-1]
            text = current.read_bytes()
            position = len(text)
            yield last_lines(text.decode("utf-8", "replace"), lines)
        text = _rest(current, position) if current is not None else b""
        if current is not None and text:
            position += len(text)
            yield text.decode("utf-8", "replace")
            over = None
        elif current is not None and files and files[-1] != current:
            current, position = files[-1], 0
            yield f"==> {current} <==\n"
        elif over is not None:  # asked before it was seen that nothing more had come
            yield f"--- {over.state}{f': {over.reason}' if over.reason else ''}\n"
            return
        else:
            if time.monotonic() >= asked:
                found = standing(folder, Queue())
                over = found if found is not None and found.is_over else None
                asked = time.monotonic() + (ASK_CLUSTER_S if found is not None and found.job_id else ASK_S)
            time.sleep(POLL_S)


def last_lines(text: str, count: int) -> str:
    """The last `count` lines of a text."""
    return "".join(text.splitlines(keepends=True)[-count:]) if count else ""


def _rest(path: Path, position: int) -> bytes:
    """What was written behind `position`, up to the end of a line unless it is long."""
    with path.open("rb") as file:
        file.seek(position)
        text = file.read(1 << 20)
    whole, end, _ = text.rpartition(b"\n")
    return whole + end if end or len(text) < 4096 else text


def _why_nothing(run: Standing | None) -> str:
    if run is None or run.state in {"waiting", "starting"}:
        return f"nothing was printed yet{f': {run.state}' if run else ''}" + (
            f", {run.reason}" if run and run.reason else ""
        )
    return "this run has no log: its output went to the terminal that it was started in"
