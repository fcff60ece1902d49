"""Regularization batches among the others: one after each of them. Pure, as the plans in order.py are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from toolkit.data.lazy import Lazy

Batch = TypeVar("Batch")


def interleave(
    train: Sequence[Batch], reg_of: Callable[[int], Sequence[Batch]], before: int = 0, usual: int | None = None
) -> Sequence[Batch]:
    """The batches of one epoch: each batch of `train`, and after it one of the regularization pictures.

    `reg_of(cycle)` are the batches of the regularization pictures in one of their own epochs. They go on where the last
    epoch left them, `before` batches after the start of the run (epoch * len(train), where epochs are equally long), so
    all of these pictures have been seen before one comes again, however many or few there are of them. Where the
    length of their epochs varies, because the data set has a `weight`, the first one counts for all, or `usual` where
    the first is only the rest of one. Without any, `train` stays as it is.
    """
    first = reg_of(0)
    usual = len(first) if usual is None else usual
    return Interleaved(train, first, reg_of, before, usual) if len(first) and usual else train


class Interleaved(Lazy[Batch]):
    """What `interleave` gives; a batch is looked up when it is asked for."""

    def __init__(
        self,
        train: Sequence[Batch],
        first: Sequence[Batch],
        reg_of: Callable[[int], Sequence[Batch]],
        before: int,
        usual: int,
    ) -> None:
        self._train, self._first, self._reg_of, self._before, self._usual = train, first, reg_of, before, usual
        self._cycle, self._reg = 0, first

    def __len__(self) -> int:
        return 2 * len(self._train)

    def at(self, place: int) -> Batch:
        """One of them."""
        number, is_reg = divmod(place, 2)
        return self._regularization(self._before + number) if is_reg else self._train[number]

    def _regularization(self, number: int) -> Batch:
        """The batch after so many others since the start of the run."""
        cycle, place = 0, number
        if number >= len(self._first):
            cycle, place = divmod(number - len(self._first), self._usual)
            cycle += 1
        if cycle != self._cycle:
            reg = self._reg_of(cycle)
            # an epoch may be empty, where a `weight` below 1 drew nothing
            self._cycle, self._reg = cycle, reg if len(reg) else self._first
        return self._reg[place % len(self._reg)]
