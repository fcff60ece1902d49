"""Where the time of a run goes: `performance_log_every`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import Tensor

from toolkit.training.state import TrainState

T = TypeVar("T")


class Pace:
    """Says every `every` steps how long a step took, and how much of that was waiting for data."""

    def __init__(self, every: int, tell: Callable[[str], None]) -> None:
        self.every, self.tell = every, tell
        self._begin = time.monotonic()
        self._waited = 0.0
        self._steps = 0

    def watch(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches; the time that each took to come is noted."""
        while True:
            begin = time.monotonic()
            batch = next(batches)
            self._waited += time.monotonic() - begin
            yield batch

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        """Print a line when it is due."""
        self._steps += 1
        if state.step % self.every == 0:
            seconds = time.monotonic() - self._begin
            share = self._waited / seconds
            self.tell(f"step {state.step}: {seconds / self._steps:.3f} s per step, {share:.0%} of it waiting for data")
            self._begin, self._waited, self._steps = time.monotonic(), 0.0, 0
