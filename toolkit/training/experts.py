"""Which of several experts is trained at a step: `train.switch_boundary_every`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from toolkit.models.family import Trainable
from toolkit.training.times import Times


@dataclass(frozen=True)
class Experts:
    """Turns of the trained denoisers, a pure function of the step: a resumed run takes the same ones.

    A batch's times lie within those of one expert, so the others get no gradient and are left alone by the optimizer.
    """

    denoisers: Sequence[Trainable]
    """The trained ones; none if only text encoders are trained."""
    every: int = 1
    """Steps between two turns."""

    def active(self, step: int) -> Trainable | None:
        """The expert that is trained at `step`; None: no particular one."""
        return self.denoisers[step // self.every % len(self.denoisers)] if self.denoisers else None

    def times(self, times: Times, step: int) -> Times:
        """The times that are drawn at `step`."""
        active = self.active(step)
        return replace(times, within=active.times) if active else times
