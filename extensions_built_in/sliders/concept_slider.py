"""The slider between two texts that trains on pictures: `type: concept_slider`. The captions are not used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from extensions_built_in.sliders.data import train_on_data
from extensions_built_in.sliders.steps import BOTH, Anchor, Direction, slide_losses
from toolkit.trainer.session import Session
from toolkit.training.batch import Batch
from toolkit.training.companions import Companion, same_for_all
from toolkit.training.step import take_shot

if TYPE_CHECKING:
    from extensions_built_in.sliders.config import ConceptSlider
    from jobs import Job

ANCHOR_SHARE = 0.5
"""In ai-toolkit the slide counts twice, as what is enhanced and what is erased, which have the same target."""


class ConceptSliderProcess:
    """Trains a network whose strength slides between the two ends of a direction of texts."""

    def __init__(self, config: ConceptSlider, job: Job) -> None:
        self.config, self.job = config, job

    def run(self) -> None:
        """Do it all; raises `Stopped` after a clean stop by the user."""
        train_on_data(self.config, self.job, self.companions, self.losses)

    @property
    def companions(self) -> list[Companion]:
        """The texts of the slider beside every picture."""
        section = self.config.slider
        texts = {
            "neutral": section.target_class,
            "positive": section.positive_prompt,
            "negative": section.negative_prompt,
        }
        if section.anchor_class is not None:
            texts["anchor"] = section.anchor_class
        return [same_for_all(name, (text,), negative=False) for name, text in texts.items()]

    def losses(self, session: Session, batch: Batch, step: int) -> Iterator[Tensor]:
        """The losses of a step: both directions, on the same pictures."""
        section, objective = self.config.slider, session.aims.at(step)
        shot = take_shot(session.family, batch, objective)
        batch = shot.batch
        neutral, positive, negative = (batch.with_other(name).cond for name in ("neutral", "positive", "negative"))
        direction = Direction(neutral, positive, negative, section.guidance_strength, batch.strength)
        weight = section.anchor_strength * ANCHOR_SHARE
        anchors = [Anchor(batch.with_other("anchor").cond, batch.strength, weight)] if "anchor" in batch.others else []
        yield from slide_losses(session.family, session.state.network, objective, [(shot, BOTH)], direction, anchors)
