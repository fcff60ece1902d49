"""What the keys of `train` say about the objective: which modules are trained, whose turn it is, by which rules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from toolkit.models.family import Facts
from toolkit.networks.network import Network
from toolkit.trainer.preserving import make_companions, with_guidance, with_preservation
from toolkit.trainer.rules import make_objective
from toolkit.trainer.trained import Teaches, choose_trained
from toolkit.training.batch import Batch
from toolkit.training.experts import Experts
from toolkit.training.objective import Objective
from toolkit.training.preservation import Base

if TYPE_CHECKING:
    from toolkit.config.sections.train import TrainSection


class Aims:
    """What is trained, and the rules of each step."""

    def __init__(self, options: TrainSection, facts: Facts, teaches: Teaches = "nothing") -> None:
        """Nothing need be loaded. ValueError for what cannot be trained."""
        self._options = options
        self._network: Network | None = None
        self.trained = choose_trained(facts, options, teaches)
        self.objective = with_guidance(make_objective(options, facts), options)
        self.companions = make_companions(options)
        denoisers = [trainable for trainable in self.trained if not trainable.is_text_encoder]
        self.experts = Experts(denoisers, options.switch_boundary_every)
        if options.timestep_type == "next_sample" and any(expert.times[0] > 0 for expert in denoisers):
            raise ValueError(
                "train.timestep_type: next_sample trains where a step of the sampler leads, and from the times of the "
                "expert for much noise that is to those of the other; choose another type, or train the other alone"
            )
        self.live_texts = teaches != "nothing" or any(trainable.is_text_encoder for trainable in self.trained)
        for turn in range(len(denoisers)):
            self.at(turn * self.experts.every).times.check()

    def bind(self, network: Network) -> None:
        """Take the network that is trained: the model without it is what some rules compare with."""
        self.objective = with_preservation(self.objective, self._options, Base(network, self.live_texts))
        self._network = network

    @contextmanager
    def acting(self, batch: Batch) -> Iterator[None]:
        """Inside the block, the network acts as strongly as the data set of the batch asks for."""
        if batch.strength == 1:
            yield
            return
        assert self._network is not None, "bind comes first"
        with self._network.scaled(batch.strength):
            yield

    def at(self, step: int) -> Objective:
        """The rules of a step, at the times of the expert whose turn it is."""
        return replace(self.objective, times=self.experts.times(self.objective.times, step))
