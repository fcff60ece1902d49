"""Loss values on their way from the device to the log, without making the device wait."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; nothing of it was saved."""

    hint = "lower train.lr, or use train.dtype: bf16 instead of fp16"

    def __init__(self, step: int, value: float) -> None:
        super().__init__(f"the loss became {value} at step {step}; the last checkpoint is intact. Try: {self.hint}")


class LossReader:
    """Reads losses one or a few steps late, when the device has finished them."""

    def __init__(self, device: torch.device) -> None:
        self._late = device.type == "cuda"
        self._waiting: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def push(self, step: int, loss: Tensor) -> None:
        """Start to copy the loss of `step` to the host."""
        if not self._late:
            self._waiting.append((step, loss, None))
            return
        host = torch.empty((), dtype=torch.float32, pin_memory=True)
        host.copy_(loss.detach(), non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((step, host, event))

    def read(self, wait: bool = False) -> list[tuple[int, float]]:
        """(step, loss) of all steps that are known by now; `wait`: of all steps. Raises NonFiniteLoss."""
        values: list[tuple[int, float]] = []
        while self._waiting:
            step, host, event = self._waiting[0]
            if event is not None and not event.query():
                if not wait:
                    break
                event.synchronize()
            self._waiting.popleft()
            value = float(host)
            if not math.isfinite(value):
                raise NonFiniteLoss(step, value)
            values.append((step, value))
        return values
