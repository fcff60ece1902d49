"""Guided targets and predictions, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.models.conditions import Conditions
from toolkit.models.family import Facts
from toolkit.training.batch import Batch
from toolkit.training.companions import same_for_all
from toolkit.training.guidance import (
    GuidedGuess,
    GuidedTarget,
    at_times,
    beyond,
    extrapolated,
    projected,
    pushed,
    regained,
    spread,
)
from toolkit.training.objective import Objective, path_target, predict, squared
from toolkit.training.path import Path
from toolkit.training.step import aim, step_losses
from toolkit.training.times import Times

FACTS = Facts(channels=2, stride=8, multiple=16, base_model="x")
FLOW = Path.of(FACTS)
NO = same_for_all("no", ("nothing",))


class Told:
    """A family whose answer is the number that its text stands for, times a trained factor."""

    facts = FACTS

    def __init__(self) -> None:
        self.factor = torch.nn.Parameter(torch.ones(()))

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return self.factor * cond["text"].view(-1, 1, 1, 1) * torch.ones_like(noisy)

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        return no + scale * (yes - no)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"mu": 0.0}


def batch_of(texts: tuple[str, ...] = ("one", "two"), say: float = 3.0, no: float = 1.0) -> Batch:
    count = len(texts)
    generator = torch.Generator().manual_seed(0)
    x, e = (torch.randn(count, 2, 3, 4, generator=generator) for _ in range(2))
    u = torch.rand(count, generator=generator, dtype=torch.float64)
    others = {"no": Conditions({"text": torch.full((count,), no)})}
    return Batch(
        x,
        Conditions({"text": torch.full((count,), say)}),
        torch.ones(count),
        u,
        e,
        texts,
        others=others,
        other_texts={"no": ("nothing",) * count},
    )


def test_guidance_goes_scale_times_the_way() -> None:
    no, yes = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[2.0, 4.0], [1.0, -1.0]])
    found = pushed(no, yes, torch.tensor([3.0, 0.5]))
    assert found.tolist() == [[4.0, 8.0], [0.5, -0.5]]


def test_the_unconditional_is_scaled_to_where_it_is_closest() -> None:
    generator = torch.Generator().manual_seed(1)
    yes, no = (torch.randn(2, 3, 4, 5, generator=generator) for _ in range(2))
    found = projected(yes, no)
    for one, other, scaled in zip(yes.double(), no.double(), found.double(), strict=True):
        solution = torch.linalg.lstsq(other.reshape(-1, 1), one.reshape(-1, 1)).solution
        torch.testing.assert_close(scaled, other * solution, atol=1e-5, rtol=1e-5)
    assert projected(yes, torch.zeros_like(no)).abs().max() == 0


def test_the_scale_follows_the_time() -> None:
    scale, t = torch.tensor([3.0, 3.0, 5.0]), torch.tensor([0.0, 1.0, 0.25])
    assert at_times(scale, t, "constant").tolist() == [3, 3, 5]
    assert at_times(scale, t, "sigma").tolist() == [1, 3, 2]


def test_drawn_scales_are_uniform_and_not_those_of_the_times() -> None:
    u = torch.rand(4000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = spread(u, 2.0, 6.0)
    assert 2 <= found.min() < 2.05 and 5.95 < found.max() < 6
    assert found.mean() == pytest.approx(4, abs=0.1)
    assert torch.corrcoef(torch.stack([u, found]))[0, 1].abs() < 0.05


def test_the_deviation_comes_back() -> None:
    generator = torch.Generator().manual_seed(3)
    yes = torch.randn(2, 3, 4, 5, generator=generator)
    answer = 4 * yes + 1
    whole, half = regained(answer, yes, 1.0), regained(answer, yes, 0.5)
    torch.testing.assert_close(whole.std((1, 2, 3)), yes.std((1, 2, 3)))
    torch.testing.assert_close(half, (answer + whole) / 2)


def test_a_guided_target_lies_beyond_the_plain_one() -> None:
    batch, family = batch_of(("one", "nothing")), Told()
    t = torch.tensor([0.5, 0.5], dtype=torch.float64)
    shot = aim(batch, FLOW, t, batch.noise)
    found = GuidedTarget(path_target, predict, NO, (3.0, 3.0))(family, shot)  # type: ignore[arg-type]
    plain = batch.noise - batch.latents
    torch.testing.assert_close(found[0], 1 + 3 * (plain[0] - 1))
    # what the others are pushed away from is trained as it is
    assert torch.equal(found[1], plain[1]) and not found.requires_grad
    by_time = GuidedTarget(path_target, predict, NO, (3.0, 3.0), "sigma")(family, shot)  # type: ignore[arg-type]
    torch.testing.assert_close(by_time[0], 1 + 2 * (plain[0] - 1))
    fitted = GuidedTarget(path_target, predict, NO, (3.0, 3.0), is_projected=True)(family, shot)  # type: ignore[arg-type]
    torch.testing.assert_close(fitted[0], plain[0].mean() + 3 * (plain[0] - plain[0].mean()))


def test_a_guided_prediction_is_trained_through_both_passes() -> None:
    batch, family = batch_of(), Told()
    shot = aim(batch, FLOW, torch.tensor([0.5, 0.5], dtype=torch.float64), batch.noise)
    found = GuidedGuess(predict, NO, (2.0, 2.0))(family, shot)  # type: ignore[arg-type]
    assert torch.equal(found, torch.full_like(found, 1 + 2 * (3 - 1)))
    found.mean().backward()
    assert float(family.factor.grad) == pytest.approx(5)  # 1 + 2 * (3 - 1) again: both passes count
    drawn = GuidedGuess(predict, NO, (1.0, 4.0))(family, shot).detach()[0, 0, 0, 0]  # type: ignore[arg-type]
    assert 3 <= float(drawn) <= 9 and float(drawn) == pytest.approx(1 + 2 * float(spread(batch.u[:1], 1, 4)))


def test_differential_guidance_is_a_larger_gradient_of_the_squared_error() -> None:
    batch = batch_of()
    gradients = []
    for distance in (squared, extrapolated(squared, 3.0)):
        family = Told()
        objective = Objective(FLOW, Times("linear"), distance=distance)
        (loss,) = step_losses(family, batch, objective)  # type: ignore[arg-type]
        loss.backward()
        gradients.append((float(loss.detach()), float(family.factor.grad)))
    (plain, slope), (far, steep) = gradients
    assert far == pytest.approx(9 * plain) and steep == pytest.approx(3 * slope)
    assert beyond(torch.tensor(1.0), torch.tensor(2.0), 3.0) == 4


def test_what_should_stay_is_not_extrapolated() -> None:
    batch = replace(batch_of(), keeps_base=True)
    shot = aim(batch, FLOW, torch.tensor([0.5, 0.5], dtype=torch.float64), batch.noise)
    guess = torch.zeros_like(batch.latents)
    assert torch.equal(extrapolated(squared, 3.0)(guess, shot), squared(guess, shot))
