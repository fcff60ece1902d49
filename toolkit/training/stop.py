"""Stopping a run on ctrl+c or SIGTERM: finish the step, save, leave."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class StopFlag:
    """Set by the first SIGINT or SIGTERM; a second SIGINT raises KeyboardInterrupt at once."""

    def __init__(self, tell: Callable[[str], None] = lambda text: None) -> None:
        self.requested = False
        self._tell = tell
        self._kept: dict[int, Any] = {}

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._kept[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        # the signal may have come in the middle of a write to the same stream, which then refuses a second one
        with contextlib.suppress(RuntimeError):
            self._tell("stopping: finishing this step and saving (ctrl+c again leaves without saving)")
