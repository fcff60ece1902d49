"""What a job expects of a process."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class Process(Protocol):
    """One part of a job; what `ProcessPlugin.build(job)` returns."""

    def run(self) -> None:
        """Do the work. Raise `Stopped` after a clean stop."""
        ...


@runtime_checkable
class Holding(Protocol):
    """A process that holds something outside `run`."""

    def on_error(self, error: BaseException) -> None:
        """Let go of it; called when a process of the job fails, be it another one."""
        ...


class Stopped(Exception):
    """The user stopped a process and it saved its state; the message says where."""
