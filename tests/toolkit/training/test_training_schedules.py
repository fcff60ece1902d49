"""Schedules do what their names say."""

import math
from typing import Any

import pytest

from toolkit.training.schedules import SHAPES, schedule


def curve(name: str, total: int, lr: float = 1.0, **params: Any) -> list[float]:
    """Return the factors of all steps."""
    factor = schedule(name, total, params, lr)
    return [factor(step) for step in range(total)]


def test_constant() -> None:
    assert curve("constant", 5) == [1.0] * 5


@pytest.mark.parametrize("name", ["constant_with_warmup", "cosine_with_warmup", "linear", "polynomial", "cosine"])
def test_warmup_rises_evenly_from_above_zero(name: str) -> None:
    factors = curve(name, 100, num_warmup_steps=4)
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(factors) == 1.0


def test_names_with_warmup_warm_up_by_themselves() -> None:
    assert curve("constant_with_warmup", 100)[:11] == pytest.approx([step / 11 for step in range(1, 12)])
    assert curve("constant_with_warmup", 100_000)[999] < 1 == curve("constant_with_warmup", 100_000)[1000]


def test_linear_decays_to_zero() -> None:
    assert curve("linear", 4) == [1.0, 0.75, 0.5, 0.25]
    assert schedule("linear", 4)(4) == 0.0
    assert curve("linear", 6, num_warmup_steps=2)[2:] == [1.0, 0.75, 0.5, 0.25]


def test_cosine_is_half_a_wave() -> None:
    factors = curve("cosine", 10)
    assert factors == pytest.approx([(1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)])
    assert schedule("cosine", 10)(10) == pytest.approx(0, abs=1e-12)


def test_restarts_restart() -> None:
    factors = curve("cosine_with_restarts", 10, num_cycles=3)
    assert [step for step in range(1, 10) if factors[step] > factors[step - 1]] == [4, 7]
    assert curve("cosine_with_restarts", 9, num_cycles=3) == pytest.approx(curve("cosine", 3) * 3)
    # 100 is three cycles of 33 1/3: the fourth would begin exactly at the end.
    assert schedule("cosine_with_restarts", 100, {"num_cycles": 3})(100) == 0.0
    assert max(curve("cosine_with_restarts", 100)[10:]) > 0.99


def test_restarts_with_lengths() -> None:
    assert curve("cosine_with_restarts", 8, T_0=4) == pytest.approx(curve("cosine", 4) * 2)
    assert curve("cosine_with_restarts", 6, T_0=2, T_mult=2) == pytest.approx(curve("cosine", 2) + curve("cosine", 4))


def test_polynomial_and_step() -> None:
    assert curve("polynomial", 4, power=2) == [1.0, 0.5625, 0.25, 0.0625]
    assert curve("step", 7, step_size=3, gamma=0.5) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert curve("step", 9) == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 3)


@pytest.mark.parametrize("key", ["eta_min", "lr_end"])
@pytest.mark.parametrize("name", ["linear", "cosine", "polynomial"])
def test_floor_is_a_learning_rate(name: str, key: str) -> None:
    factor = schedule(name, 100, {key: 1e-5}, lr=1e-4)
    assert factor(0) == 1.0
    assert factor(100) == pytest.approx(0.1)
    assert factor(50) == pytest.approx(0.1 + 0.9 * 0.5)


@pytest.mark.parametrize("key", ["total_iters", "num_training_steps", "T_max", "max_iterations"])
def test_shorter_length_ends_the_decay_early(key: str) -> None:
    factors = curve("linear", 8, **{key: 4})
    assert factors == [1.0, 0.75, 0.5, 0.25, 0, 0, 0, 0]


@pytest.mark.parametrize("name", SHAPES)
def test_all_stay_between_zero_and_one_and_begin_above_zero(name: str) -> None:
    for total in (1, 2, 50):
        factors = curve(name, total)
        assert all(0 <= factor <= 1 for factor in factors) and factors[0] > 0
        assert math.isfinite(schedule(name, total)(total + 5))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("cosin", {}, r"no schedule is named 'cosin'; did you mean 'cosine'\?; known: constant"),
        ("cosine", {"num_cycle": 1}, "no parameter 'num_cycle'; did you mean 'num_cycles'"),
        ("constant", {"gamma": 1}, "constant has no parameter 'gamma'.*it takes num_warmup_steps"),
        ("linear", {"num_warmup_steps": -1}, "num_warmup_steps must be a whole number from 0"),
        ("linear", {"num_warmup_steps": 2.5}, "num_warmup_steps must be a whole number"),
        ("linear", {"num_warmup_steps": "ten"}, "num_warmup_steps must be a whole number"),
        ("cosine_with_restarts", {"T_0": 0}, "t_0 must be a whole number from 1"),
        ("cosine_with_restarts", {"num_cycles": 0}, "num_cycles must be a whole number from 1"),
        ("cosine_with_restarts", {"T_0": 2, "T_mult": 0.5}, "t_mult is 0.5"),
        ("step", {"gamma": "x"}, "gamma is 'x'"),
        ("cosine", {"eta_min": "low"}, "eta_min"),
    ],
)
def test_mistakes_are_named(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(name, 100, params)


def test_case_and_nulls_and_exponents() -> None:
    assert schedule("Cosine", 10, {"num_warmup_steps": None})(0) == 1.0
    assert schedule("linear", 100, {"num_warmup_steps": 1e1})(0) == pytest.approx(1 / 11)
