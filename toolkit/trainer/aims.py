"""What the keys of `train` say about the objective: which modules are trained, whose turn it is, by which rules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from toolkit.models.family import Facts
from toolkit.trainer.rules import make_objective
from toolkit.trainer.trained import choose_trained
from toolkit.training.experts import Experts
from toolkit.training.objective import Objective

if TYPE_CHECKING:
    from toolkit.config.sections.train import TrainSection


class Aims:
    """What is trained, and the rules of each step."""

    def __init__(self, options: TrainSection, facts: Facts) -> None:
        """Nothing need be loaded. ValueError for what cannot be trained."""
        self.trained = choose_trained(facts, options)
        self.objective = make_objective(options, facts)
        denoisers = [trainable for trainable in self.trained if not trainable.is_text_encoder]
        self.experts = Experts(denoisers, options.switch_boundary_every)
        self.live_texts = any(trainable.is_text_encoder for trainable in self.trained)
        for turn in range(len(denoisers)):
            self.at(turn * self.experts.every).times.check()

    def at(self, step: int) -> Objective:
        """The rules of a step, at the times of the expert whose turn it is."""
        return replace(self.objective, times=self.experts.times(self.objective.times, step))
