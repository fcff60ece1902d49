"""The batches of every epoch: which samples may share one, and where those of regularization pictures come in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from toolkit.context import Context
from toolkit.data.course import Course
from toolkit.data.interleave import interleave
from toolkit.data.item import Item
from toolkit.data.items import Items
from toolkit.data.lazy import Lazy
from toolkit.data.loader import Position
from toolkit.data.order import Plan, plan

NUM_NAMED = 1000
"""Samples whose names ranks compare, about."""


class Turn(NamedTuple):
    """A batch of an epoch."""

    epoch: int
    """Decides what is random; regularization pictures count epochs of their own."""
    indices: np.ndarray
    is_spare: bool = False
    """Whether this rank has no part in the batch, and these samples only keep it in step."""


class Turns(Lazy[Turn]):
    """The batches of a plan, in its epoch, after the `before` that older plans of the epoch gave."""

    def __init__(self, batches: Plan, epoch: int, before: int = 0) -> None:
        self._batches, self._epoch, self._before = batches, epoch, before

    def __len__(self) -> int:
        return self._before + len(self._batches)

    def at(self, place: int) -> Turn:
        """One of them."""
        place -= self._before
        if place < 0:
            raise IndexError("batches of an older plan are not made again")
        indices = self._batches[place]
        return Turn(self._epoch, indices) if len(indices) else Turn(self._epoch, self._batches.spare(place), True)


class Order:
    """The order of all samples for this rank; `signature` is what else but sizes must agree within a batch.

    `course` says where batches had other sizes; without, they have always had those of today.
    """

    def __init__(
        self,
        data: Items,
        context: Context,
        signature: Callable[[Item], Hashable] | None,
        course: Course | None = None,
    ) -> None:
        self._data, self._context, self._signature = data, context, signature
        self._course = course or Course()
        if not self._course.changes:
            self._course.go_on(Position(0, 0), global_sizes(data, context))

    def turns(self, epoch: int) -> Sequence[Turn]:
        """The batches of an epoch."""
        is_reg = self._is_reg
        if is_reg.all() or not is_reg.any():
            return self._rest_of(epoch, None, 1)
        batches = self._rest_of(epoch, np.flatnonzero(~is_reg), 2)
        start, cycle, among = self._regularization
        is_rest, sizes = len(among) < len(self._reg), self._course.changes[-1].sizes
        first = Turns(self._plan(cycle, sizes, among, is_rest), cycle)

        def reg_of(number: int) -> Turns:
            return Turns(self._plan(cycle + number, sizes, self._reg), cycle + number) if number else first

        usual = len(self._plan(cycle, sizes, self._reg)) if is_rest else len(first)
        return interleave(batches, reg_of, self._before(epoch, len(batches)) - start, usual)

    def fingerprint(self) -> bytes:
        """Equal if other ranks have the same samples in the same buckets; of very many, some stand for all."""
        some = range(0, len(self._data), max(1, len(self._data) // NUM_NAMED))
        names = "\0".join(self._data[place].id for place in some)
        digest = blake2b(names.encode("utf-8", "surrogatepass"), digest_size=16)
        for numbers in (self._buckets, self._data.batch_sizes(), self._is_reg):
            digest.update(np.ascontiguousarray(numbers).tobytes())
        return digest.digest()

    # -- plans ----------------------------------------------------------------------------------------------------

    def _plan(self, epoch: int, sizes: tuple[int, ...], among: np.ndarray | None, is_rest: bool = False) -> Plan:
        """The plan of this rank; `is_rest`: `among` are what chance has left in the epoch already."""
        context, chances = self._context, None if is_rest else self._chances
        made = plan(self._buckets, np.array(sizes)[self._sets], context.seed, epoch, chances=chances, among=among)
        return made.of(context.rank, context.world)

    def _rest_of(self, epoch: int, among: np.ndarray | None, stride: int) -> Turns:
        """The batches of an epoch, after those of the plans that it had before its sizes changed.

        `stride` is how many places in the epoch each batch has: 2 where one of regularization pictures follows it.
        """
        sizes, before, is_rest = self._course.sizes_at(epoch), 0, False
        for change in self._course.within(epoch):
            count = -(-change.index // stride)
            among = self._plan(epoch, sizes, among, is_rest).after(count - before)
            sizes, before, is_rest = change.sizes, count, True
        return Turns(self._plan(epoch, sizes, among, is_rest), epoch, before)

    # -- regularization -------------------------------------------------------------------------------------------

    @cached_property
    def _regularization(self) -> tuple[int, int, np.ndarray]:
        """Where the pictures go on since the last change: batches before it, their epoch then, what is left of it."""
        changes, reg = self._course.changes, self._reg
        start, cycle, among = 0, 0, reg
        for before, change in pairwise(changes):
            count = self._before(change.epoch, 0) + change.index // 2
            made = self._plan(cycle, before.sizes, among, len(among) < len(reg))
            num_given, start = count - start, count
            if num_given >= len(made):
                whole = self._plan(cycle + 1, before.sizes, reg)
                more, num_given = divmod(num_given - len(made), max(1, len(whole)))
                cycle, among = cycle + 1 + more, reg
                made = self._plan(cycle, before.sizes, reg)
            among = made.after(num_given) if num_given else among
            if not len(among):  # where a `weight` drew fewer than are usual
                cycle, among = cycle + 1, reg
        return start, cycle, among

    def _before(self, epoch: int, usual: int) -> int:
        """How many batches the epochs before this one had; `usual` is what one has with the sizes of today."""
        changes = self._course.changes
        if len(changes) == 1:
            return epoch * (usual or len(self._rest_of(epoch, self._train, 2)))
        lengths: dict[tuple[int, ...], int] = {}
        count = 0
        for number in range(epoch):
            if self._course.within(number):
                count += len(self._rest_of(number, self._train, 2))
                continue
            sizes = self._course.sizes_at(number)
            if sizes not in lengths:
                lengths[sizes] = len(self._plan(number, sizes, self._train))
            count += lengths[sizes]
        return count

    @cached_property
    def _train(self) -> np.ndarray:
        return np.flatnonzero(~self._is_reg)

    @cached_property
    def _reg(self) -> np.ndarray:
        return np.flatnonzero(self._is_reg)

    @cached_property
    def _is_reg(self) -> np.ndarray:
        return self._data.is_reg()

    @cached_property
    def _sets(self) -> np.ndarray:
        """The data set of each sample."""
        return self._data.places()[0]

    @cached_property
    def _chances(self) -> np.ndarray | None:
        """Shares of the epochs that samples come up in."""
        return self._data.chances()

    @cached_property
    def _buckets(self) -> np.ndarray:
        """Numbers that are equal where samples may share a batch: what a batch has one value of must agree."""
        data = self._data
        treatments = [items.treatment for items in data.datasets]
        values = [(bool(each.guidance_type), each.keeps_base, each.strength) for each in treatments]
        kinds = sorted(set(values))
        kind_of_set = np.array([kinds.index(value) for value in values], np.int64)
        buckets = data.keys() * len(kinds) + kind_of_set[self._sets]
        if self._signature is None:
            return buckets
        numbers: dict[Hashable, int] = {}
        keys = zip(buckets.tolist(), map(self._signature, self._data), strict=True)
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def global_sizes(data: Items, context: Context) -> tuple[int, ...]:
    """Samples of a batch over all ranks, for each data set."""
    return tuple(items.treatment.batch_size * context.world for items in data.datasets)
