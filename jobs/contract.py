"""What a job expects of a process."""

from __future__ import annotations

from typing import Protocol


class Process(Protocol):
    """One part of a job; what `ProcessPlugin.build(job)` returns."""

    def run(self) -> None:
        """Do the work. Raise `Stopped` after a clean stop."""
        ...

    def on_error(self, error: BaseException) -> None:
        """Let go of what is held; called on every process of the job when one of them fails."""
        ...


class Stopped(Exception):
    """The user stopped a process and it saved its state; the message says where."""
