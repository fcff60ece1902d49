"""The heartbeat of a training: how far it is, for `aitk status`, in the run folder."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from statistics import median

from torch import Tensor

from toolkit.launch.record import Record
from toolkit.reporting.device_memory import memory_in_use
from toolkit.run_folder import RunFolder
from toolkit.training.state import TrainState

EVERY_S = 5.0


class Heartbeat:
    """A hook that looks at a clock at every step, and writes at most every `EVERY_S`."""

    def __init__(self, record: Record, folder: RunFolder, total: int, step: int) -> None:
        self.record, self.folder, self.total = record, folder, total
        self._time, self._step = time.monotonic(), step
        self._due = self._time
        # of the last intervals, so that a pause for pictures does not count
        self._paces: deque[float] = deque(maxlen=25)
        self._write()

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        """Write when it is due; the first step is."""
        now = time.monotonic()
        if now < self._due:
            return
        self._paces.append((now - self._time) / (state.step - self._step))
        self._time, self._step, self._due = now, state.step, now + EVERY_S
        self._write()

    def end(self, step: int, stopped: str) -> None:
        """Write where the training ended; `stopped` says why before its end, if it did."""
        self._step = step
        self._write()
        self.record.note(state="stopped" if stopped else "done", reason=stopped)

    def _write(self) -> None:
        checkpoint = None
        with suppress(ValueError, OSError):  # what is wrong with the manifest is told by the next save
            checkpoint = max((saved.step for saved in self.folder.checkpoints()), default=None)
        pace = median(self._paces) if self._paces else None
        self.record.note(
            step=self._step,
            total=self.total,
            seconds_per_step=pace,
            checkpoint=checkpoint,
            memory_bytes=memory_in_use(),
        )


@contextmanager
def recording(folder: RunFolder) -> Iterator[Record]:
    """Keep the record of a run; it ends with the block, and an error is noted on its way."""
    record = Record(folder.path)
    try:
        yield record
    except KeyboardInterrupt:
        record.note(state="stopped", reason="interrupted; what was saved before is complete")
        raise
    except BaseException as error:
        record.note(state="failed", reason=" ".join(str(error).split()) or type(error).__name__)
        raise
    if record.state == "running":
        record.note(state="stopped", reason="the caches are filled, nothing was trained")
