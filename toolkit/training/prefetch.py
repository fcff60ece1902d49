"""The next batch is moved to the GPU, on a stream of its own, while the step before it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch

from toolkit.data.loader import Loader, Position
from toolkit.training.batch import Batch

F = TypeVar("F")


class Prefetch(Iterator[tuple[Position, Batch]], Generic[F]):
    """The batches of a loader on the device; `finish` moves them there, and may compute;
    what it makes no batch of is left out.

    No step waits for the batch after its own to be fetched, and without a GPU nothing is done ahead.
    """

    def __init__(
        self, loader: Loader[Any, F], finish: Callable[[F], Batch | None], device: torch.device, in_step: bool = False
    ) -> None:
        """`in_step`: other ranks take as many batches, so one of which nothing is left is replaced by a spare one."""
        self._loader, self._finish, self._device, self._in_step = loader, finish, device, in_step
        self._last: Batch | None = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._next: tuple[Position, Batch, torch.cuda.Event] | None = None
        self._error: Exception | None = None

    def __next__(self) -> tuple[Position, Batch]:
        if self._stream is None:
            return self._take()
        if self._error:
            raise self._error
        position, batch, is_moved = self._next or self._prepare(self._stream)
        self._next = None
        if self._loader.is_ready:
            try:
                self._next = self._prepare(self._stream)
            except Exception as error:  # raised in its turn: the batch before it is good
                self._error = error
        step = torch.cuda.current_stream(self._device)
        step.wait_event(is_moved)
        for tensor in batch.tensors():
            # its memory belongs to the other stream, which must not reuse it while the step reads it
            tensor.record_stream(step)
        return position, batch

    def _take(self) -> tuple[Position, Batch]:
        while True:
            position, fetched = next(self._loader)
            batch = self._finish(fetched)
            if batch is None and self._in_step:
                if self._last is None:
                    raise ValueError("nothing of the first batch of this rank can be read; repair or remove its files")
                batch = self._last.as_spare()
            if batch is not None:
                self._last = batch if self._in_step else None
                return position, batch

    def _prepare(self, stream: torch.cuda.Stream) -> tuple[Position, Batch, torch.cuda.Event]:
        # what is computed with may have been moved or changed by the steps so far
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            position, batch = self._take()
            is_moved = torch.cuda.Event()
            is_moved.record(stream)
        return position, batch, is_moved
