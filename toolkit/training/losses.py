"""Loss values on their way from the device to the log, without making the device wait."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor


class NonFinite(RuntimeError):
    """The loss or a weight became NaN or infinite; nothing of that is saved."""

    hint = "lower train.lr, or use train.dtype: bf16 instead of fp16"

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} at step {step}; all earlier saves are intact")


def check_finite(step: int, value: float) -> None:
    """Raise NonFinite if the loss of `step` is no number."""
    if not math.isfinite(value):
        raise NonFinite(step, f"the loss became {value}")


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
        """(step, loss) of all steps that are known by now; `wait`: of all steps. Raises NonFinite."""
        values: list[tuple[int, float]] = []
        while self._waiting:
            step, host, event = self._waiting[0]
            if event is not None and not event.query():
                if not wait:
                    break
                event.synchronize()
            self._waiting.popleft()
            value = float(host)
            check_finite(step, value)
            values.append((step, value))
        return values
