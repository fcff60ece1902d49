"""The files of samples that no cache holds, read for every batch anew; a sample that cannot be read is left out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np

from toolkit.data.item import Item
from toolkit.data.items import Items
from toolkit.data.pictures.decoding import Decoded, Unread, Wish, decode
from toolkit.data.pictures.image import BrokenImage
from toolkit.data.records import Part
from toolkit.data.workers import APART_FROM, Workers


class Reader:
    """Reads samples of `data`, by worker processes if they are worth it; `tell` names what is left out, once."""

    def __init__(self, data: Items, seed: int, workers: Workers, tell: Callable[[str], None]) -> None:
        self.data, self._seed, self._workers, self._tell = data, seed, workers, tell
        self._broken: set[tuple[Path, Part | None]] = set()
        self._lock = Lock()

    def read(self, items: list[Item], epoch: int, references: Callable[[Item], bool]) -> list[Decoded | None]:
        """What is in the files of some samples, None where that cannot be read; several threads may ask at once.

        `references` says of which samples the references are wanted too.
        """
        wishes = [Wish(item, self._seed, epoch, references=references(item)) for item in items]
        if self._workers.num_workers and self._is_much:
            futures = [self._workers.call(decode, wish, str(wish)) for wish in wishes]
            results = [future.result() for future in futures]
        else:
            results = [decode(wish) for wish in wishes]
        for item, result in zip(items, results, strict=True):
            if isinstance(result, Unread):
                self._leave_out(item, result.error)
        return [None if isinstance(result, Unread) else result for result in results]

    @cached_property
    def _is_much(self) -> bool:
        """Whether an epoch is worth worker processes."""
        sizes = self.data.sizes().astype(np.int64)
        return bool((sizes[:, 0] * sizes[:, 1] * np.maximum(sizes[:, 2], 1)).sum() >= APART_FROM)

    def _leave_out(self, item: Item, error: BrokenImage) -> None:
        """Raise if that may not be, or if no sample is left."""
        if item.treatment.strict:
            raise error
        with self._lock:
            if _file(item) in self._broken:
                return
            self._broken.add(_file(item))
        self._tell(f"{error}; left out")
        if all(_file(other) in self._broken for other in self.data):
            raise ValueError("no image is left to train on") from error


def _file(item: Item) -> tuple[Path, Part | None]:
    # an archive holds many pictures
    return item.record.path, item.record.part
