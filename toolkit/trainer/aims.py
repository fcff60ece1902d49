"""What a step minimizes: the loss of a batch at the times of the expert whose turn it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from extensions_built_in.sd_trainer.trained import choose_trained
from toolkit.models.family import Family
from toolkit.training.batch import Batch
from toolkit.training.experts import Experts
from toolkit.training.path import Path as NoisePath
from toolkit.training.step import step_loss
from toolkit.training.texts import with_texts
from toolkit.training.times import Times

if TYPE_CHECKING:
    from extensions_built_in.sd_trainer.config import SdTrainer


class Objective:
    """The loss as a function of batch and step."""

    def __init__(self, config: SdTrainer, family: Family) -> None:
        """Nothing need be loaded. ValueError for what cannot be trained."""
        options, self.family = config.train, family
        self.trained = choose_trained(family.facts, options)
        self.path = NoisePath.of(family.facts)
        self.times = Times(
            options.timestep_type or ("sigmoid" if family.facts.prediction == "flow" else "linear"),
            options.content_or_style,
            low=options.min_denoising_steps / 1000,
            high=min(1.0, (options.max_denoising_steps + 1) / 1000),
        )
        denoisers = [trainable for trainable in self.trained if not trainable.is_text_encoder]
        self.experts = Experts(denoisers, options.switch_boundary_every)
        self.live_texts = any(trainable.is_text_encoder for trainable in self.trained)
        for turn in range(len(denoisers)):
            times = self.experts.times(self.times, turn * self.experts.every)
            times.check()

    def loss(self, batch: Batch, step: int) -> Tensor:
        """A scalar on the device."""
        if self.live_texts:
            batch = with_texts(self.family, batch)
        return step_loss(self.family, batch, self.path, self.experts.times(self.times, step))
