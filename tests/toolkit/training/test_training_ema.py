"""The average of trained weights: its recurrence, its warm-up, swapping in and out, continuing."""

from __future__ import annotations

import pytest
import torch

from toolkit.training.ema import Ema


def trained(ema: Ema, param: torch.nn.Parameter, values: list[float]) -> None:
    for value in values:
        param.data.fill_(value)
        ema.update([param])


def by_hand(start: float, values: list[float], decay: float) -> float:
    for n, value in enumerate(values, start=1):
        d = min(decay, (1 + n) / (10 + n))
        start = d * start + (1 - d) * value
    return start


@pytest.mark.parametrize("decay", [0.1, 0.99])
def test_the_average_follows_its_recurrence(decay: float):
    param = torch.nn.Parameter(torch.full((3,), 5.0))
    ema = Ema([param], decay)
    values = [float(i % 7) for i in range(40)]
    trained(ema, param, values)
    torch.testing.assert_close(ema.shadow[0], torch.full((3,), by_hand(5.0, values, decay)))


def test_the_decay_is_reached():
    param = torch.nn.Parameter(torch.zeros(()))
    ema = Ema([param], 0.5)
    trained(ema, param, [0.0] * 20 + [1.0])
    assert ema.shadow[0].item() == pytest.approx(0.5)


def test_applied_swaps_and_restores_even_after_an_error():
    param = torch.nn.Parameter(torch.ones(2))
    ema = Ema([param], 0.5)
    trained(ema, param, [3.0] * 5)
    average = ema.shadow[0].clone()
    with pytest.raises(KeyboardInterrupt), ema.applied([param]):
        assert torch.equal(param.detach(), average)
        raise KeyboardInterrupt
    assert (param == 3).all() and torch.equal(ema.shadow[0], average)
    assert param.requires_grad and param.grad is None


def test_it_continues_where_it_was():
    param = torch.nn.Parameter(torch.zeros(4))
    through, half = Ema([param], 0.9), Ema([param], 0.9)
    values = [1.0, 2.0, 3.0, 4.0]
    trained(half, param, values[:2])
    saved = half.state_dict()
    resumed = Ema([torch.nn.Parameter(torch.full((4,), 7.0))], 0.9)
    resumed.load_state_dict(saved)
    trained(resumed, param, values[2:])
    trained(through, param, values)
    assert torch.equal(through.shadow[0], resumed.shadow[0]) and resumed.num_updates == 4


def test_another_number_of_weights_is_refused():
    ema = Ema([torch.zeros(2)], 0.9)
    with pytest.raises(ValueError):
        ema.load_state_dict(Ema([torch.zeros(2), torch.zeros(2)], 0.9).state_dict())
