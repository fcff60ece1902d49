"""A run without a terminal: a process of its own session, whose output goes into the run folder."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.launch.record import is_live, read_background, read_status, write_background

LOG = "log.txt"
VARIABLE = "AITK_BACKGROUND"


def in_background(env: Mapping[str, str]) -> bool:
    """Whether this process was started by `start`, or by one that was."""
    return VARIABLE in env


def busy(folder: Path) -> str:
    """Which process does a run in this folder at this time; "" if none does."""
    for process in (read_status(folder), read_background(folder)):
        if is_live(process):
            return f"process {process['pid']} on {process['host']}"
    return ""


def start(command: Sequence[str], folders: Sequence[Path], env: Mapping[str, str]) -> tuple[int, Path]:
    """Start `command`, which is Python's, run.py and its arguments, and does the runs of `folders`.

    Returns its pid and the log, which is in the first folder.
    """
    log = folders[0].absolute() / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} aitk run {subprocess.list2cmdline(command[2:])}\n")
        file.flush()
        process = subprocess.Popen(
            command,
            env={**env, VARIABLE: "1", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            **_detached(),
        )
    for folder in folders:
        write_background(folder, process.pid, log)
    return process.pid, log


def _detached() -> dict[str, Any]:
    """So that neither ctrl+c nor the end of the terminal reaches it."""
    if os.name == "nt":
        return {"creationflags": 0x0000_0008 | 0x0000_0200}  # DETACHED_PROCESS, CREATE_NEW_PROCESS_GROUP
    return {"start_new_session": True}
