"""The loop: what one step averages over, which rate it takes, when it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.context import Context
from toolkit.data.loader import Position
from toolkit.models.conditions import Conditions
from toolkit.training.batch import Batch
from toolkit.training.loop import train
from toolkit.training.losses import NonFinite
from toolkit.training.state import TrainState
from toolkit.training.stop import StopFlag


def batch_of(*values: float) -> Batch:
    latents = torch.tensor(values).view(-1, 1, 1, 1)
    count = len(values)
    return Batch(latents, Conditions({}), torch.ones(count), torch.zeros(count, dtype=torch.float64), latents)


def endless(*batches: Batch) -> Iterator[tuple[Position, Batch]]:
    epoch = 0
    while True:
        yield from ((Position(epoch, index + 1), batch) for index, batch in enumerate(batches))
        epoch += 1


class Seen:
    """Keeps what every step left, and asks to stop at one of them."""

    def __init__(self, stop: StopFlag, stop_at: int = -1) -> None:
        self.stop, self.stop_at = stop, stop_at
        self.steps: list[tuple[int, float, float]] = []

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        assert state.is_whole
        self.steps.append((state.step, float(loss), float(state.params[0].detach().sum())))
        self.stop.requested = state.step == self.stop_at


def run(state: TrainState, cpu: Context, *batches: Batch, total: int = 1, stop_at: int = -1, **options: Any) -> Seen:
    """Train with the loss weight * value, whose gradient is the mean of the values."""
    stop = StopFlag()
    seen = Seen(stop, stop_at)
    rate = options.pop("rate", lambda step: 1.0)
    options.setdefault("max_grad_norm", 0.0)
    weight = state.params[0]

    def losses_of(batch: Batch, step: int) -> Iterator[Tensor]:
        yield (weight.sum() * batch.latents.flatten()).mean()

    train(state, endless(*batches), losses_of, total, rate, [seen], cpu, stop, **options)
    return seen


def test_the_rate_of_a_step_is_the_base_rate_times_the_schedule(line: Callable[..., TrainState], cpu: Context) -> None:
    seen = run(line(lr=0.5), cpu, batch_of(1.0), total=3, rate=lambda step: [1.0, 0.5, 0.25][step])
    assert [weight for _, _, weight in seen.steps] == [-0.5, -0.75, -0.875]


def test_groups_keep_their_own_base_rates(line: Callable[..., TrainState], cpu: Context) -> None:
    state = line(lr=0.1)
    state.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.2})
    run(state, cpu, batch_of(1.0), total=2, rate=lambda step: 10.0 / (step + 1))
    assert [group["lr"] for group in state.optimizer.param_groups] == [0.5, 1.0]


def test_a_step_averages_over_samples_and_not_over_batches(line: Callable[..., TrainState], cpu: Context) -> None:
    parts = [batch_of(1.0, 2.0, 6.0), batch_of(7.0)]
    small = run(line(), cpu, *parts, accumulate=2)
    big = run(line(), cpu, batch_of(1.0, 2.0, 6.0, 7.0))
    assert small.steps == big.steps == [(1, 0.0, -4.0)]


def test_gradients_are_clipped_to_the_norm_and_only_down(line: Callable[..., TrainState], cpu: Context) -> None:
    assert run(line(4), cpu, batch_of(8.0), max_grad_norm=1.0).steps[0][2] == pytest.approx(-2.0)  # 4 x 1/2
    assert run(line(4), cpu, batch_of(0.25), max_grad_norm=1.0).steps[0][2] == pytest.approx(-1.0)
    assert run(line(4), cpu, batch_of(8.0), max_grad_norm=0.0).steps[0][2] == pytest.approx(-32.0)


def test_the_loop_ends_at_the_total_and_knows_where_the_data_go_on(
    line: Callable[..., TrainState], cpu: Context
) -> None:
    state = line()
    batches = [batch_of(1.0), batch_of(1.0), batch_of(1.0)]
    assert [step for step, *_ in run(state, cpu, *batches, total=2, accumulate=2).steps] == [1, 2]
    assert state.position == Position(1, 1)
    assert run(state, cpu, *batches, total=2).steps == []


def test_a_stop_is_heard_after_the_step(line: Callable[..., TrainState], cpu: Context) -> None:
    state = line()
    run(state, cpu, batch_of(1.0), total=9, stop_at=3)
    assert (state.step, state.position) == (3, Position(2, 1))


def test_a_loss_that_is_no_number_never_reaches_the_weights(line: Callable[..., TrainState], cpu: Context) -> None:
    state = line()
    with pytest.raises(NonFinite, match="the loss became nan at step 2"):
        run(state, cpu, batch_of(1.0), batch_of(math.nan), total=5)
    assert state.step == 1 and state.is_whole and state.params[0].item() == -1.0


def test_the_average_takes_in_every_step(line: Callable[..., TrainState], cpu: Context) -> None:
    from toolkit.training.ema import Ema

    state = line()
    state.ema = Ema(state.params, 0.5)
    run(state, cpu, batch_of(1.0), total=3)
    assert state.ema.num_updates == 3 and -3.0 < state.ema.shadow[0].item() < 0.0
