"""Files in the run folder that ask a run to save or to stop, where no signal reaches it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from toolkit.launch.requeue import STOP_FILE
from toolkit.training.state import TrainState
from toolkit.training.stop import StopFlag

SAVE_FILE = "save"
EVERY_S = 2.0
"""How often the folder is looked at: a network file system should not notice."""


class StopFiles:
    """A hook: `touch RUN/save` has the run save after the step, `touch RUN/stop` save and end for good."""

    def __init__(self, folder: Path, stop: StopFlag, save: Callable[[TrainState], None] | None) -> None:
        """`save` is None where all ranks have to save together, and only one of them looks at files."""
        self._stop_file, self._save_file = folder / STOP_FILE, folder / SAVE_FILE
        self._stop, self._save = stop, save
        # of an earlier start
        self._stop_file.unlink(missing_ok=True)
        self._due = time.monotonic()

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        """Look, now and then."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + EVERY_S
        if self._save is not None and self._save_file.exists():
            self._save_file.unlink(missing_ok=True)
            self._save(state)
        self._stop.requested |= self._stop_file.exists()
