"""Batches of pixels and captions for a training loop of one's own, in the order in which training sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from toolkit.data.item import Item
from toolkit.data.items import Items
from toolkit.data.loader import in_order
from toolkit.data.order import Plan, plan
from toolkit.data.pictures.image import BrokenImage, to_pixels
from toolkit.data.pictures.pixels import item_pixels
from toolkit.notebook.problems import note_broken


@dataclass(frozen=True)
class PixelBatch:
    """Samples of one bucket."""

    pixels: Tensor
    """[B, 3, (F,) H, W] in -1..1."""
    captions: list[str]
    items: list[Item]

    def __len__(self) -> int:
        return len(self.items)


class PixelBatches:
    """Every iteration is one epoch, the next one each time; the same seed and epoch give the same batches.

    Pictures whose pixels are broken are left out of their batches and named in `problems`.
    """

    def __init__(
        self,
        items: Items,
        batch_size: int,
        seed: int = 42,
        epoch: int = 0,
        num_workers: int = 2,
        problems: list[str] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.items, self.batch_size, self.seed, self.num_workers = items, batch_size, seed, num_workers
        self.problems = [] if problems is None else problems
        self.epoch = epoch
        """The epoch that the next iteration shows."""

    def __len__(self) -> int:
        return len(self._plan(self.epoch))

    def __iter__(self) -> Iterator[PixelBatch]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        load = partial(_load, items=self.items, seed=self.seed, epoch=epoch)
        for batch, broken in in_order(load, self._plan(epoch), self.num_workers, prefetch=2):
            for error in broken:
                note_broken(error, self.problems)
            if batch is not None:
                yield batch

    def _plan(self, epoch: int) -> Plan:
        return plan(self.items.keys(), self.batch_size, self.seed, epoch, chances=self.items.chances())


def _load(indices: np.ndarray, items: Items, seed: int, epoch: int) -> tuple[PixelBatch | None, list[BrokenImage]]:
    read: list[tuple[Item, np.ndarray]] = []
    broken: list[BrokenImage] = []
    for index in indices:
        item = items[int(index)]
        try:
            read.append((item, item_pixels(item, seed, epoch)))
        except BrokenImage as error:
            broken.append(error)
    if not read:
        return None, broken
    pixels = to_pixels(np.stack([array for _, array in read]))
    some = [item for item, _ in read]
    return PixelBatch(pixels, [item.text(seed, epoch) for item in some], some), broken
