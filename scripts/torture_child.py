"""A run that ends itself by SIGKILL at a chosen moment, for torture.py; moments are counted, so that each can be hit.

A moment is the begin or the end of a phase of the run, the begin and the end of a backward pass, an optimizer's step
and a sync to the disk, and every file that is about to be opened for writing, renamed or deleted below a folder.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import toolkit.sampling.hook
import toolkit.trainer.session
import toolkit.training.loop
from jobs import get_job
from toolkit.cli.run import run_jobs
from toolkit.run_folder import RunFolder
from toolkit.sampling.hook import SamplePictures
from toolkit.trainer.session import Session
from toolkit.training.hooks import Save
from toolkit.training.picture_rows import PictureRows
from toolkit.training.state import TrainState
from toolkit.training.text_rows import TextRows

MOST_MOMENTS = 1 << 14
PHASES: list[tuple[str, Any, str]] = [
    ("starting", Session, "__init__"),
    ("writing the cache of pictures", PictureRows, "encode_latents"),
    ("writing the cache of captions", TextRows, "encode"),
    ("loading and resuming", Session, "load"),
    ("in a step", Session, "steps"),
    ("in an update", toolkit.training.loop, "update"),
    ("saving", Save, "save"),
    ("saving the weights", Save, "_write"),
    ("saving the state", TrainState, "save"),
    ("saving the manifest", RunFolder, "record"),
    ("pruning", RunFolder, "prune"),
    ("sampling", SamplePictures, "make"),
    ("the contact sheet", toolkit.sampling.hook, "write_contact_sheet"),
    ("the end of the run", toolkit.trainer.session, "finish"),
]
"""What is reported, and the function that it is."""
ELSEWHERE = "between the phases"
NAMES = [ELSEWHERE, *(name for name, _, _ in PHASES)]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Kill:
    """Where a run ends itself: at a moment by its number; `torn`: what it is about to rename loses its end first."""

    moment: int
    torn: float | None = None


class Told(ctypes.Structure):
    """What a run tells its parent, in memory that both have, so that a killed one has told it too."""

    moments: int
    """How many have passed."""
    phase: int
    """The number in NAMES."""
    start: int
    """The step at which it began, -1 before that."""
    done: int
    saved: int
    """The step of the last save of this start, -1 before that."""
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("moments", "phase", "start", "done", "saved")),
        ("phases", ctypes.c_int64 * MOST_MOMENTS),
    ]

    def clear(self) -> None:
        """Forget the run before."""
        self.moments, self.phase = 0, 0
        self.start = self.done = self.saved = -1


def shared() -> Told:
    """One for a process and its copies."""
    return Told.from_buffer(mmap.mmap(-1, ctypes.sizeof(Told)))


class Run:
    """The trainer with its moments counted; for a process that does nothing else and ends with it."""

    def __init__(self, told: Told, below: Path, kill: Kill | None) -> None:
        self.told, self.below, self.kill = told, str(below), kill
        self._stack = [0]

    def go(self, config: dict[str, Any], log: Path) -> int:
        """Do the job, with what it prints appended to a file; returns the exit code."""
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        self._watch()
        return run_jobs([get_job(config)], recover=False, log_file=None)

    def moment(self, about_to_rename: str = "") -> None:
        """One more; perhaps the last."""
        told, number = self.told, self.told.moments
        told.phases[number] = told.phase
        told.moments = number + 1
        if self.kill and number == self.kill.moment:
            if about_to_rename and self.kill.torn is not None:
                os.truncate(about_to_rename, int(os.path.getsize(about_to_rename) * self.kill.torn))
            os.kill(os.getpid(), signal.SIGKILL)

    def _watch(self) -> None:
        for number, (_, owner, name) in enumerate(PHASES, start=1):
            setattr(owner, name, self._phase(number, getattr(owner, name)))
        for owner, name in ((os, "fsync"), (torch.Tensor, "backward")):
            setattr(owner, name, self._around(getattr(owner, name)))
        register_optimizer_step_pre_hook(lambda *_: self.moment())
        register_optimizer_step_post_hook(lambda *_: self.moment())
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & WRITING):
            return
        path = os.fspath(args[0]) if isinstance(args[0], str | os.PathLike) else ""
        if isinstance(path, str) and path.startswith(self.below):
            is_file = event == "os.rename" and os.path.isfile(path)
            self.moment(path if is_file else "")

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.moment()
            result = function(*args, **kwargs)
            self.moment()
            return result

        return counted

    def _phase(self, number: int, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._stack.append(number)
            self.told.phase = number
            self.moment()
            result = function(*args, **kwargs)
            self._note(function.__qualname__, args)
            self.moment()
            self._stack.pop()
            self.told.phase = self._stack[-1]
            return result

        return counted

    def _note(self, name: str, args: tuple[Any, ...]) -> None:
        if name == "Session.load":
            self.told.start = self.told.done = args[0].state.step
        elif name == "update":
            self.told.done = args[0].step + 1
        elif name == "TrainState.save":
            self.told.saved = args[0].step


def random_kill(phases: Sequence[int], among: list[int], rng: random.Random) -> Kill:
    """A moment of one of the phases, each as likely as the others however short it is."""
    phase = rng.choice(among)
    moment = rng.choice([number for number, found in enumerate(phases) if found == phase])
    return Kill(moment, rng.random() if rng.random() < 0.7 else None)
