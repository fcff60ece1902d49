"""The sliders of picture pairs: `type: image_reference_slider_trainer`, and with texts `ultimate_slider_trainer`.

A pair shows both ends. At positive strength the network learns to denoise the positive picture, at negative strength
the negative one, from the same noise at the same time and under the same caption: Gandikota et al. (2023), "Concept
Sliders", section 4.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from extensions_built_in.sliders.data import train_on_data
from extensions_built_in.sliders.pairs import split_pairs
from extensions_built_in.sliders.scenes import Scene, scenes_of
from extensions_built_in.sliders.steps import BOTH, Anchor, Direction, pair_losses, slide_losses
from toolkit.models.family import Family
from toolkit.trainer.session import Session
from toolkit.training.batch import Batch
from toolkit.training.companions import Companion, same_for_all
from toolkit.training.guidance import spread
from toolkit.training.objective import Objective, Shot
from toolkit.training.step import take_shot

if TYPE_CHECKING:
    from extensions_built_in.sliders.config import ReferenceSlider, UltimateSlider
    from extensions_built_in.sliders.sections import PairFolders
    from jobs import Job

SIDES = ("neutral", "positive", "negative")


class ReferenceSliderProcess:
    """Trains a network whose strength slides between the pictures of pairs."""

    def __init__(self, config: ReferenceSlider, job: Job) -> None:
        self.config, self.job = config, job

    def run(self) -> None:
        """Do it all; raises `Stopped` after a clean stop by the user."""
        split_pairs(self.config.pairs, self.config.training_folder)
        train_on_data(self.config, self.job, (), self.losses)

    def losses(self, session: Session, batch: Batch, step: int) -> Iterator[Tensor]:
        """The losses of a step: both pictures of the pairs; the farther the strengths are shifted, the less."""
        width, objective = self.config.slider.weight_jitter, session.aims.at(step)
        shift = jitter_of(batch, width)
        positive, negative = shots_of(session.family, batch, objective)
        strengths = strengths_of(self.config.pairs, batch, shift)
        shots = [(strengths[0], positive), (strengths[1], negative)]
        weight = 1 - abs(shift) / width if width else 1.0
        yield from pair_losses(session.family, session.state.network, objective, shots, weight)


class UltimateSliderProcess:
    """Trains a network whose strength slides between the pictures of pairs and between texts."""

    def __init__(self, config: UltimateSlider, job: Job) -> None:
        self.config, self.job = config, job

    def run(self) -> None:
        """Do it all; raises `Stopped` after a clean stop by the user."""
        split_pairs(self.config.pairs, self.config.training_folder)
        train_on_data(self.config, self.job, self.companions, self.losses)

    @property
    def companions(self) -> list[Companion]:
        """The scenes of every target and the anchors, beside every picture."""
        section, seed = self.config.slider, self.config.training_seed
        lines, found = section.lines, []
        for number, target in enumerate(section.targets):
            found += scene_companions(number, scenes_of(target, lines, seed))
        for number, anchor in enumerate(section.anchors):
            found.append(same_for_all(f"anchor {number}", (anchor.prompt,), negative=False))
        return found

    def losses(self, session: Session, batch: Batch, step: int) -> Iterator[Tensor]:
        """The losses of a step: both pictures of the pairs, then the texts of the target whose turn it is on them."""
        section, objective, network = self.config.slider, session.aims.at(step), session.state.network
        positive, negative = shots_of(session.family, batch, objective)
        strengths = strengths_of(self.config.pairs, batch, jitter_of(batch, section.weight_jitter))
        if section.img_loss_weight:
            shots = [(strengths[0], positive), (strengths[1], negative)]
            yield from pair_losses(session.family, network, objective, shots, section.img_loss_weight)
        if not section.cfg_loss_weight:
            return
        number = step % len(section.targets)
        target = section.targets[number]
        neutral, ends_at, starts_at = (positive.batch.with_other(f"{side} {number}").cond for side in SIDES)
        weight = target.weight * section.cfg_loss_weight
        direction = Direction(neutral, ends_at, starts_at, section.guidance_strength, target.multiplier, weight)
        ends = [(positive, BOTH[:1]), (negative, BOTH[1:])]
        chosen = ends if section.batch_full_slide else [ends[step // len(section.targets) % 2]]
        yield from slide_losses(session.family, network, objective, chosen, direction, self._anchors(positive.batch))

    def _anchors(self, batch: Batch) -> list[Anchor]:
        weight = self.config.slider.cfg_loss_weight
        return [
            Anchor(batch.with_other(f"anchor {number}").cond, anchor.multiplier, weight)
            for number, anchor in enumerate(self.config.slider.anchors)
        ]


def scene_companions(number: int, scenes: list[Scene]) -> list[Companion]:
    """The three texts of a target's scenes; a sample draws all three of the same scene."""
    columns = zip(SIDES, zip(*(scene.texts for scene in scenes), strict=True), strict=True)
    return [
        replace(same_for_all(f"{side} {number}", texts, negative=False), drawn_with=f"scene {number}")
        for side, texts in columns
    ]


def shots_of(family: Family, batch: Batch, objective: Objective) -> tuple[Shot, Shot]:
    """The positive pictures and the negative ones, with the same noise at the same times."""
    assert batch.pair_latents is not None
    other = replace(batch, latents=batch.pair_latents, pair_latents=batch.latents)
    return take_shot(family, batch, objective), take_shot(family, other, objective)


def strengths_of(pairs: Sequence[PairFolders], batch: Batch, shift: float) -> tuple[float, float]:
    """The strengths of the network at the positive and at the negative end, both moved by `shift`."""
    negatives = dict(pair.strengths for pair in pairs)
    return batch.strength + shift, shift - negatives[batch.strength]


def jitter_of(batch: Batch, width: float) -> float:
    """A number from -width to width that follows from the batch's own random numbers."""
    return float(spread(batch.u[:1], -width, width))
