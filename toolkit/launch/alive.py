"""Whether a process of this machine is still the one that was noted: pids are given out again."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

PROC = Path("/proc")


def birth(pid: int) -> str:
    """What tells a process from a later one of the same pid; "" if there is none, or it has ended."""
    if (PROC / "self" / "stat").exists():
        try:
            # the name, in brackets, may hold spaces and brackets
            fields = (PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in {"Z", "X"} else f"{_boot()}-{fields[19]}"
    psutil = importlib.import_module("psutil")
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.Error:
        return ""


def is_alive(pid: int, born: str) -> bool:
    """Whether the process that `birth` told of is there."""
    return bool(born) and birth(pid) == born


@functools.cache
def _boot() -> str:
    """Which start of the machine this is: times since the start repeat."""
    return (PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
