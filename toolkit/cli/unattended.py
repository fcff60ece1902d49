"""Runs that no terminal shows: sent to the background, told to end by a cluster, and noted in their folders."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer

from toolkit.cli.launching import Todo, folder_of, subject_of
from toolkit.launch.background import busy, in_background, start
from toolkit.launch.environment import on_cluster, own_rank, stop_signals
from toolkit.launch.record import Record, State, close, is_live, read_status
from toolkit.launch.requeue import after_stop


def note_begin(work: Todo) -> None:
    """Note that the work goes on, where it has no terminal that would show it; a trainer notes more than that."""
    has_no_terminal = on_cluster(os.environ) or in_background(os.environ)
    if has_no_terminal and own_rank(os.environ) == 0 and not is_live(read_status(_noted_in(work))):
        Record(_noted_in(work))


def note_end(work: Todo, state: State, reason: str = "") -> None:
    """Note how the work ended, if something was noted of it."""
    if own_rank(os.environ) == 0:
        close(_noted_in(work), state, reason)


def send_to_background(todo: Sequence[Todo], command: Sequence[str]) -> int:
    """Start `command` without a terminal, which does the work, and say where to look; the exit code."""
    folders = [folder_of(work) for work in todo]
    for folder in folders:
        if process := busy(folder):
            print(f"{folder} is in use by another run, {process}; `aitk cancel {folder}` stops it", file=sys.stderr)
            return 1
    pid, log = start(command, folders, os.environ)
    for work, folder in zip(todo, folders, strict=True):
        print(f"job '{subject_of(work).name}' runs in the background as process {pid}; results: {folder}")
    shown = shlex.quote(str(folders[0]))
    print(f"log: {log}\n`aitk status {shown}`, `aitk logs -f {shown}` and `aitk cancel {shown}` watch and stop it")
    return 0


@contextmanager
def leaving_when_told(env: Mapping[str, str]) -> Iterator[None]:
    """What a cluster sends before it ends a job is like ctrl+c; the steps of a trainer hear it themselves, and save."""
    numbers = stop_signals(env) if on_cluster(env) else []
    for number in numbers:
        signal.signal(number, _interrupt)
    try:
        if numbers:
            # held back since the process began
            signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        yield
    except KeyboardInterrupt:
        if not numbers:
            raise
        # before the first job, or after the last one
        print("interrupted before the job began", file=sys.stderr)
        raise typer.Exit(after_stop(env, together=False)) from None
    finally:
        # what is done must not fail because its time is up while Python takes itself down
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


def _noted_in(work: Todo) -> Path:
    return Path(os.environ["AITK_RUN_FOLDER"]) if on_cluster(os.environ) else folder_of(work)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
