"""The losses of sliders, with a family whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from extensions_built_in.sliders.pair_slider import jitter_of, shots_of, strengths_of
from extensions_built_in.sliders.sections import PairFolders
from extensions_built_in.sliders.steps import (
    BOTH,
    Anchor,
    Direction,
    pair_losses,
    replaced_losses,
    slide_losses,
)
from toolkit.models.conditions import Conditions
from toolkit.models.family import Facts
from toolkit.training.batch import Batch
from toolkit.training.draws import draw
from toolkit.training.objective import Objective
from toolkit.training.path import Path
from toolkit.training.step import take_shot

FACTS = Facts(channels=4, stride=8, multiple=16, base_model="x")
DIFFUSION = replace(FACTS, prediction="epsilon", scheduler={"num_train_timesteps": 1000})
VIDEO = replace(FACTS, frame_stride=4)
SHAPES = {"flow": (FACTS, (4, 6, 8)), "epsilon": (DIFFUSION, (4, 6, 8)), "video": (VIDEO, (4, 2, 6, 8))}


class World:
    """A family that answers a number per text plus what a network of one number adds; the network as well."""

    def __init__(self, facts: Facts = FACTS) -> None:
        self.facts, self.strength = facts, 1.0
        self.weight = torch.zeros((), requires_grad=True)

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        text = cond["text"].view(-1, *[1] * (noisy.ndim - 1))
        return 0.1 * noisy + text + self.strength * self.weight

    @contextmanager
    def scaled(self, multiplier: float) -> Iterator[None]:
        before, self.strength = self.strength, self.strength * multiplier
        yield
        self.strength = before


def text(*numbers: float) -> Conditions:
    return Conditions({"text": torch.tensor(numbers)})


def batch_of(shape: tuple[int, ...], count: int = 2) -> Batch:
    u, noise = draw(range(count), shape)
    latents = torch.randn(count, *shape, generator=torch.Generator().manual_seed(9))
    return Batch(latents, text(*[0.0] * count), torch.ones(count), u, noise)


def parts_of(world: Any, losses: Iterator[Tensor]) -> list[tuple[float, float]]:
    """(strength of the network, loss) of each part."""
    return [(world.strength, loss.item()) for loss in losses]


@pytest.mark.parametrize("kind", SHAPES)
def test_a_slide_has_the_targets_of_the_paper(kind: str) -> None:
    facts, shape = SHAPES[kind]
    world: Any = World(facts)
    objective = Objective(Path.of(facts))
    shot = take_shot(world, batch_of(shape), objective)
    world.weight = torch.tensor(0.7, requires_grad=True)
    direction = Direction(text(1, 2), text(4, 3), text(-1, 2.5), guidance=3, strength=2, weight=0.5)
    anchors = [Anchor(text(7, 7), strength=0.5, weight=0.1)]
    found = parts_of(world, slide_losses(world, world, objective, [(shot, BOTH)], direction, anchors))
    # neutral + sign g (positive - negative), against neutral + sign s w: 0.1 noisy and neutral cancel
    offsets = (3 * (4 - -1), 3 * (3 - 2.5))
    whole = sum((2 * 0.7 - offset) ** 2 for offset in offsets) / 2 * 0.5
    held = (0.5 * 0.7) ** 2 * 0.1
    wanted = [(2.0, whole / 2), (0.5, held / 2), (-2.0, whole / 2), (-0.5, held / 2)]
    assert found == [(strength, pytest.approx(loss, rel=1e-4)) for strength, loss in wanted]
    one = parts_of(world, slide_losses(world, world, objective, [(shot, BOTH[1:])], direction))
    assert one == [(-2.0, pytest.approx(whole, rel=1e-4))]


def test_both_directions_train_the_same_network() -> None:
    world: Any = World()
    objective = Objective(Path.of(FACTS))
    shot = take_shot(world, batch_of((4, 6, 8)), objective)
    direction = Direction(text(1, 1), text(4, 4), text(2, 2), guidance=0.5, strength=2)
    for sign in BOTH:
        (loss,) = slide_losses(world, world, objective, [(shot, (sign,))], direction)
        (gradient,) = torch.autograd.grad(loss, world.weight)
        # 2 (s w - g (p - n)) s with w = 0
        assert float(gradient) == pytest.approx(-2 * 0.5 * 2 * 2, rel=1e-4)


def test_samples_and_times_count_by_their_weights() -> None:
    world: Any = World()
    shot = take_shot(world, replace(batch_of((4, 6, 8)), weight=torch.tensor([2.0, 0.0])), Objective(Path.of(FACTS)))
    direction = Direction(text(0, 0), text(1, 5), text(0, 0), guidance=1)
    weighed = Objective(Path.of(FACTS), weight=lambda path, t: torch.full_like(t, 3.0))
    (loss,) = slide_losses(world, world, weighed, [(shot, (1,))], direction)
    assert float(loss) == pytest.approx(3 * 2 * 1 / 2)


def test_each_picture_of_a_pair_is_denoised_at_its_own_strength() -> None:
    world: Any = World()
    objective, batch = Objective(Path.of(FACTS)), batch_of((4, 6, 8))
    other = replace(batch, latents=batch.latents + 1)
    shots = [(1.5, take_shot(world, batch, objective)), (-0.5, take_shot(world, other, objective))]
    assert torch.equal(shots[0][1].t, shots[1][1].t) and torch.equal(shots[0][1].e, shots[1][1].e)
    world.weight = torch.tensor(0.4, requires_grad=True)
    found = parts_of(world, pair_losses(world, world, objective, shots, weight=4))
    wanted = []
    for strength, shot in shots:
        error = 0.1 * shot.noisy + strength * 0.4 - (batch.noise - shot.batch.latents)
        wanted.append((strength, pytest.approx(float(error.square().mean()) * 4 / 2, rel=1e-4)))
    assert found == wanted


def test_the_positive_picture_is_that_of_the_data_set_and_the_negative_one_its_pair() -> None:
    world: Any = World()
    batch = batch_of((4, 6, 8))
    batch = replace(batch, pair_latents=batch.latents + 1, strength=2.0)
    positive, negative = shots_of(world, batch, Objective(Path.of(FACTS)))
    assert torch.equal(positive.batch.latents, batch.latents) and torch.equal(negative.batch.latents, batch.latents + 1)
    assert torch.equal(positive.e, negative.e) and torch.equal(positive.t, negative.t)
    torch.testing.assert_close(negative.wanted, positive.wanted - 1)


def test_strengths_are_those_of_the_folders_and_are_shifted_together() -> None:
    folders = [
        PairFolders(pos_folder="p", neg_folder="n", pos_weight=2.0, neg_weight=0.5),
        PairFolders(pos_folder="p", neg_folder="n"),
    ]
    batch = replace(batch_of((4, 6, 8)), strength=2.0)
    assert strengths_of(folders, batch, 0.0) == (2.0, -0.5)
    assert strengths_of(folders, replace(batch, strength=1.0), 0.25) == (1.25, -0.75)
    shifts = {jitter_of(replace(batch, u=torch.tensor([u], dtype=torch.float64)), 0.3) for u in (0.1, 0.5001, 0.9)}
    assert len(shifts) == 3 and all(-0.3 <= shift < 0.3 for shift in shifts)


def test_a_concept_is_compared_with_its_replacement_without_the_network() -> None:
    world: Any = World()
    objective = Objective(Path.of(FACTS))
    shot = take_shot(world, batch_of((4, 6, 8)), objective)
    world.weight = torch.tensor(0.4, requires_grad=True)
    (loss,) = replaced_losses(world, world, objective, shot, text(5, 6), text(1, 2))
    assert float(loss) == pytest.approx((4 + 0.4) ** 2, rel=1e-4)
