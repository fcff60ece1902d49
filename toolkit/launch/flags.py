"""Flags of sbatch: which of them a config sets by keys of its own, and how a value is written behind `#SBATCH`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

KEYS = {
    "job-name": "config.name",
    "account": "account",
    "partition": "partition",
    "qos": "qos",
    "reservation": "reservation",
    "nodes": "nodes",
    "gpus-per-node": "gpus_per_node",
    "gpus": "gpus_per_node",
    "gres": "gres",
    "ntasks": "nodes and gpus_per_node",
    "ntasks-per-node": "gpus_per_node",
    "cpus-per-task": "cpus_per_task",
    "mem": "mem",
    "time": "time",
    "constraint": "constraint",
    "exclude": "exclude",
    "mail-user": "mail",
    "dependency": "dependency",
    "requeue": "requeue",
    "no-requeue": "requeue",
    "signal": "signal and signal_lead_s",
    "array": "config.sweep",
}
"""Flag -> the key that says it."""
OURS = ("chdir", "output", "error", "open-mode", "parsable", "test-only", "wait", "wrap")
"""What aitk relies on; the log of a run is one file that all its starts add to."""
SHORT = {
    "A": "account",
    "p": "partition",
    "q": "qos",
    "N": "nodes",
    "G": "gpus",
    "n": "ntasks",
    "c": "cpus-per-task",
    "t": "time",
    "C": "constraint",
    "x": "exclude",
    "d": "dependency",
    "J": "job-name",
    "D": "chdir",
    "o": "output",
    "e": "error",
    "a": "array",
    "W": "wait",
    "H": "hold",
    "w": "nodelist",
    "k": "no-kill",
    "s": "oversubscribe",
    "b": "begin",
    "L": "licenses",
    "M": "clusters",
    "v": "verbose",
}
NAME = re.compile(r"[a-z][a-z0-9-]*")
PLAIN = re.compile(r"[\w@%+=:,./\-\[\]]+")


def long_name(flag: str) -> str:
    """`-A`, `account`, `--account` and `mail_type` as sbatch writes them behind two dashes."""
    name = flag.lstrip("-")
    return SHORT.get(name, name if len(name) == 1 else name.replace("_", "-"))


def why_not(flag: str, value: Any) -> str:
    """What is wrong with a flag that a config gives for itself; empty if nothing is."""
    name = long_name(flag)
    if not NAME.fullmatch(name):
        return f"'{flag}' cannot be a flag of sbatch; write it as in `exclusive: true`, without dashes"
    if name in KEYS:
        home = KEYS[name]
        return f"--{name} is set by {home if '.' in home else f'launch.{home}'}; use that"
    if name in OURS:
        return f"--{name} is set by aitk"
    if not isinstance(value, str | int | float | bool | None):
        return "must be one value, or true for a flag without one"
    return "must be one line" if isinstance(value, str) and "\n" in value else ""


def line(name: str, value: str | int | float | None) -> str:
    """A line of the head of a batch script; None: a flag without a value."""
    return f"#SBATCH --{name}" if value is None else f"#SBATCH --{name}={quoted(str(value))}"


def quoted(text: str) -> str:
    """A value as sbatch reads it from a script, where spaces and # would end it."""
    if PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def given(extra: Mapping[str, Any]) -> dict[str, str | int | float | None]:
    """The flags of `launch.extra`: true and null stand for a flag without a value, false for none."""
    return {
        long_name(name): None if value is None or value is True else value
        for name, value in extra.items()
        if value is not False
    }
