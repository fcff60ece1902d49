"""The batches of every epoch: which samples may share one, and where those of regularization pictures come in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from toolkit.context import Context
from toolkit.data.interleave import interleave
from toolkit.data.item import Item
from toolkit.data.items import Items
from toolkit.data.lazy import Lazy
from toolkit.data.order import Plan, plan


class Turn(NamedTuple):
    """A batch of an epoch."""

    epoch: int
    """Decides what is random; regularization pictures count epochs of their own."""
    indices: np.ndarray


class Turns(Lazy[Turn]):
    """The batches of a plan, in its epoch."""

    def __init__(self, batches: Plan, epoch: int) -> None:
        self._batches, self._epoch = batches, epoch

    def __len__(self) -> int:
        return len(self._batches)

    def at(self, place: int) -> Turn:
        """One of them."""
        return Turn(self._epoch, self._batches[place])


class Order:
    """The order of all samples for this rank; `signature` is what else but sizes must agree within a batch."""

    def __init__(self, data: Items, context: Context, signature: Callable[[Item], Hashable] | None) -> None:
        self._data, self._context, self._signature = data, context, signature

    def turns(self, epoch: int) -> Sequence[Turn]:
        """The batches of an epoch."""
        is_reg = self._is_reg
        if is_reg.all() or not is_reg.any():
            return self._turns(epoch, None)
        train, reg = np.flatnonzero(~is_reg), np.flatnonzero(is_reg)
        batches = self._turns(epoch, train)
        return interleave(batches, lambda cycle: self._turns(cycle, reg), epoch * len(batches))

    def _turns(self, epoch: int, among: np.ndarray | None) -> Turns:
        context, (sizes, chances) = self._context, self._numbers
        rank, world = context.rank, context.world
        return Turns(plan(self._buckets, sizes, context.seed, epoch, rank, world, chances, among), epoch)

    @cached_property
    def _is_reg(self) -> np.ndarray:
        return self._data.is_reg()

    @cached_property
    def _numbers(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Batch sizes, and shares of the epochs."""
        return self._data.batch_sizes(), self._data.chances()

    @cached_property
    def _buckets(self) -> np.ndarray:
        """Numbers that are equal where samples may share a batch; those with a pair do not with those without."""
        data = self._data
        has_pair = np.array([bool(items.treatment.guidance_type) for items in data.datasets], np.int64)
        buckets = data.keys() * 2 + has_pair[data.places()[0]]
        if self._signature is None:
            return buckets
        numbers: dict[Hashable, int] = {}
        keys = zip(buckets.tolist(), map(self._signature, self._data), strict=True)
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
