"""Stopping a run on ctrl+c, SIGTERM or what a cluster sends: finish the step, save, leave."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR2", "SIGHUP") if hasattr(signal, name)]
HANGUP = getattr(signal, "SIGHUP", None)


class Stopping(Exception):
    """Work was left in the middle, because a stop was requested."""


def say_at_once(text: str) -> None:
    """Print from a signal handler: past the buffers, which the signal may have found in the middle of a write."""
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{text}\n".encode())


class StopFlag:
    """Set by the first SIGINT, SIGTERM, SIGHUP of a terminal that is closed (but not under nohup), or SIGUSR2, which a
    cluster sends before the end of the time (or another signal, which $AITK_STOP_SIGNAL names then); a second SIGINT
    raises KeyboardInterrupt at once."""

    def __init__(self, tell: Callable[[str], None] = say_at_once) -> None:
        self.requested = False
        self._tell = tell
        self._kept: dict[int, Any] = {}

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            named = getattr(signal, f"SIG{os.environ.get('AITK_STOP_SIGNAL', 'TERM')}")
            for number in {*SIGNALS, named}:
                if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._kept[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise `Stopping` if a stop was requested: where work can be left in the middle."""
        if self.requested:
            raise Stopping

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        # Python's streams refuse a second write while the signal interrupts a first one; a terminal or pipe may be gone
        with contextlib.suppress(RuntimeError, OSError):
            self._tell("stopping: finishing this step and saving (ctrl+c again leaves without saving)")
