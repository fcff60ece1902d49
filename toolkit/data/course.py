"""How large the batches of a run were from where on: another number of GPUs or another batch size changes that.

What is left of an epoch is then planned anew, among the samples that the plan before had not given yet, so that every
sample comes up once per epoch all the same. The old plans are no more than their sizes: a plan can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from toolkit.data.loader import Position


class Change(NamedTuple):
    """From a position on, batches have these sizes."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks a change for
    sizes: tuple[int, ...]
    """Samples of a batch over all ranks, for each data set."""


class Course:
    """The changes of a run, the first of them at its start; none while it is not known."""

    def __init__(self, changes: Sequence[Change] = ()) -> None:
        self.changes = list(changes)

    def go_on(self, position: Position, sizes: tuple[int, ...]) -> bool:
        """Train with batches of `sizes` from `position` on; returns whether that is a change within an epoch.

        With another number of data sets the old plans cannot be made again, and the new ones hold from the start.
        """
        if not self.changes or len(self.changes[-1].sizes) != len(sizes):
            self.changes = [Change(0, 0, sizes)]
        while self.changes and tuple(position) <= self.changes[-1][:2]:
            del self.changes[-1]  # nothing was trained since
        if not self.changes or self.changes[-1].sizes != sizes:
            self.changes.append(Change(*(position if self.changes else (0, 0)), sizes))
            return len(self.changes) > 1 and position.index > 0
        return False

    def sizes_at(self, epoch: int) -> tuple[int, ...]:
        """Those that an epoch begins with."""
        return [change.sizes for change in self.changes if change[:2] <= (epoch, 0)][-1]

    def within(self, epoch: int) -> list[Change]:
        """The changes inside an epoch, after its first batch."""
        return [change for change in self.changes if change.epoch == epoch and change.index > 0]

    def to_list(self) -> list[tuple[int, int, list[int]]]:
        """Plain numbers, for a file."""
        return [(change.epoch, change.index, list(change.sizes)) for change in self.changes]

    @classmethod
    def from_list(cls, saved: Sequence[tuple[int, int, Sequence[int]]]) -> Course:
        """What `to_list` gave."""
        return cls([Change(epoch, index, tuple(sizes)) for epoch, index, sizes in saved])
