"""The heartbeat of a training: how far it is, for `aitk status`, in the run folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import Tensor

from toolkit.launch.record import Record
from toolkit.reporting.device_memory import memory_in_use
from toolkit.reporting.progress import Speed
from toolkit.run_folder import RunFolder
from toolkit.training.state import TrainState

EVERY_S = 5.0


class Heartbeat:
    """A hook that looks at a clock at every step, and writes at most every `EVERY_S`."""

    def __init__(self, record: Record, folder: RunFolder, total: int, step: int) -> None:
        self.record, self.folder, self.total = record, folder, total
        self._step, self._due, self._speed = step, time.monotonic(), Speed()
        self._write()

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        """Write when it is due; the first step is."""
        now = time.monotonic()
        if now < self._due:
            return
        self._speed.mark(now, state.step)
        self._step, self._due = state.step, now + EVERY_S
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
        self.record.note(
            step=self._step,
            total=self.total,
            seconds_per_step=self._speed.seconds_per_step,
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
