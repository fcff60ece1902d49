"""Losses reach the log in order, and a loss that is no number stops the run."""

from __future__ import annotations

import pytest
import torch

from toolkit.training.losses import LossReader, NonFinite

CPU = torch.device("cpu")


def test_losses_are_read_once_and_in_order():
    reader = LossReader(CPU)
    for step in (1, 2, 3):
        reader.push(step, torch.tensor(step / 2))
    assert reader.read() == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert reader.read() == []
    reader.push(4, torch.tensor(2.0))
    assert reader.read(wait=True) == [(4, 2.0)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_names_its_step_and_what_to_change(value: float):
    reader = LossReader(CPU)
    reader.push(1, torch.tensor(1.0))
    reader.push(2, torch.tensor(value))
    with pytest.raises(NonFinite, match=rf"the loss became {value} at step 2") as raised:
        reader.read(wait=True)
    assert "train.lr" in raised.value.hint
