"""The losses of a slider's step: pure functions of the family, the network, the objective and a batch.

A direction is a difference of two predictions of the frozen model. The trained network is to go that way at positive
strength and the other way at negative strength: Gandikota et al. (2023), "Concept Sliders: LoRA Adaptors for Precise
Control in Diffusion Models", equation 7, on the erasing loss of Gandikota et al. (2023), "Erasing Concepts from
Diffusion Models". Epsilon, v and velocity are all linear in the prediction, so the formula is the same for each.

Every loss is differentiated while its generator waits inside `network.scaled`, so that what gradient checkpointing
computes once more is computed at the right strength.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from toolkit.models.conditions import Conditions
from toolkit.models.family import Family
from toolkit.networks.network import Network
from toolkit.training.objective import Objective, Shot
from toolkit.training.preservation import Base
from toolkit.training.step import shot_loss

BOTH = (1, -1)


@dataclass(frozen=True)
class Direction:
    """What slides: the conditions of the three texts, and how far and how strongly."""

    neutral: Conditions
    positive: Conditions
    negative: Conditions
    guidance: float
    """How far a step goes: so many times from the negative to the positive prediction."""
    strength: float = 1.0
    """Of the network, at which the step is made."""
    weight: float = 1.0


@dataclass(frozen=True)
class Anchor:
    """What stays as the frozen model has it."""

    cond: Conditions
    strength: float = 1.0
    """Of the network, at which it is held."""
    weight: float = 1.0


def slide_losses(
    family: Family,
    network: Network,
    objective: Objective,
    shots: Sequence[tuple[Shot, Sequence[int]]],
    direction: Direction,
    anchors: Sequence[Anchor] = (),
) -> Iterator[Tensor]:
    """For each shot and sign: the network at sign x strength is to answer neutral + sign x guidance x difference.

    The losses are means over all signs, so that a step of both directions counts as much as one of one direction.
    """
    count = sum(len(signs) for _, signs in shots)
    for shot, signs in shots:
        neutral, offset = predict_direction(family, network, shot, direction)
        kept = [held(family, Base(network), under(shot, anchor.cond)) for anchor in anchors]
        for sign in signs:
            with network.scaled(sign * direction.strength):
                aimed = under(shot, direction.neutral, neutral + sign * offset)
                yield shot_loss(family, aimed, objective) * (direction.weight / count)
            for anchor, aimed in zip(anchors, kept, strict=True):
                with network.scaled(sign * anchor.strength):
                    yield shot_loss(family, aimed, objective) * (anchor.weight / count)


def pair_losses(
    family: Family, network: Network, objective: Objective, shots: Sequence[tuple[float, Shot]], weight: float = 1.0
) -> Iterator[Tensor]:
    """For each (strength, shot): the network at this strength is to denoise the shot's own picture."""
    for strength, shot in shots:
        with network.scaled(strength):
            yield shot_loss(family, shot, objective) * (weight / len(shots))


def replaced_losses(
    family: Family, network: Network, objective: Objective, shot: Shot, concept: Conditions, replacement: Conditions
) -> Iterator[Tensor]:
    """The network is to answer for the concept what the frozen model answers for the replacement.

    Kumari et al. (2023), "Ablating Concepts in Text-to-Image Diffusion Models", the model-based variant; with an empty
    replacement the erasing loss of Gandikota et al. (2023) without negative guidance.
    """
    wanted = Base(network).answer(family, under(shot, replacement))
    yield shot_loss(family, under(shot, concept, wanted), objective)


def predict_direction(family: Family, network: Network, shot: Shot, direction: Direction) -> tuple[Tensor, Tensor]:
    """(neutral, guidance x (positive - negative)), predicted by the frozen model; like the latents, fp32."""
    neutral, positive, negative = (
        Base(network).answer(family, under(shot, cond))
        for cond in (direction.neutral, direction.positive, direction.negative)
    )
    return neutral, direction.guidance * (positive - negative)


def held(family: Family, base: Base, shot: Shot) -> Shot:
    """The shot with what the frozen model answers as its target."""
    return replace(shot, wanted=base.answer(family, shot))


def under(shot: Shot, cond: Conditions, wanted: Tensor | None = None) -> Shot:
    """The shot with other conditions, and with another target if one is given."""
    other = replace(shot, batch=replace(shot.batch, cond=cond))
    return other if wanted is None else replace(other, wanted=wanted)
