"""Several ranks take the steps of one with the batches of all: real processes, gloo, the real loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from toolkit.launch.environment import rank_variables
from toolkit.launch.local import kept_port

ROOT = Path(__file__).resolve().parents[3]
RANK = """
import json, sys
sys.modules["datasets"] = None
from dataclasses import replace
import torch
from toolkit.context import make_context
from toolkit.data.loader import Position
from toolkit.data.order import plan
from toolkit.models.conditions import Conditions
from toolkit.training.batch import Batch
from toolkit.training.loop import train
from toolkit.training.state import TrainState
from toolkit.training.stop import StopFlag
from toolkit.training.turns import Turns
import numpy as np

context = make_context("cpu", "fp32", 7, together=True)
is_last = context.rank == context.world - 1


class Net:
    def __init__(self):
        self.params = {name: torch.nn.Parameter(torch.full((3,), value)) for name, value in (("a", 1.0), ("b", 2.0))}


def case(batch_size, stop_at, trouble, accumulate):
    dropout = trouble == "dropout"
    net = Net()
    idle = torch.nn.Parameter(torch.ones(2))
    groups = [{"params": list(net.params.values())}, {"params": [idle]}]
    state = TrainState(net, torch.optim.AdamW(groups, lr=0.1, weight_decay=0.5))
    data = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))

    def batches():
        epoch = 0
        while True:
            turns = Turns(plan(np.zeros(7, int), batch_size, 7, epoch, context.rank, context.world), epoch)
            for number, turn in enumerate(turns):
                rows = data[turn.indices]
                u = torch.zeros(len(rows), dtype=torch.float64)
                batch = Batch(rows, Conditions({}), torch.ones(len(rows)), u, rows)
                is_lost = trouble == "nothing can be read" and (epoch, number) == (1, 0)
                yield Position(epoch, number + 1), batch.as_spare() if turn.is_spare or is_lost else batch
            epoch += 1

    def losses(batch, step):
        # dropout may leave `b` out on one rank only
        used = net.params["a"] + (net.params["b"] if context.rank == 0 or step % 2 or not dropout else 0)
        if trouble == "nan" and is_last and step == 3:
            used = used * float("nan")
        if trouble == "one has the word" and is_last:
            used = used + idle.sum()
        yield ((batch.latents - used).square().mean(1) * batch.weight).mean()
        if trouble == "a second loss on one" and is_last:
            yield ((batch.latents + used).square().mean(1) * batch.weight).mean()

    seen, stop = [], StopFlag()

    class Hook:
        def after_step(self, state, loss):
            sums = [float(param.detach().sum()) for param in state.params]
            seen.append((state.step, float(loss), tuple(state.position), sums))
            stop.requested |= is_last and state.step == stop_at

    error = ""
    try:
        train(state, batches(), losses, 9, lambda step: 1.0, [Hook()], context, stop, accumulate=accumulate)
    except RuntimeError as problem:
        error = str(problem)
    return {"seen": seen, "idle": idle.tolist(), "error": error}


print(json.dumps([case(*each) for each in json.loads(sys.argv[1])]))
"""
Case = tuple[int, int, str, int]
"""Batch size, step at which the last rank is asked to stop, what is wrong, batches per step."""
PLAIN, ACCUMULATED, STOPPED = (3, -1, "", 1), (1, -1, "", 3), (3, 4, "", 1)
TROUBLES = ("dropout", "one has the word", "a second loss on one", "nan", "nothing can be read")
CASES: list[Case] = [PLAIN, ACCUMULATED, STOPPED, *((3, -1, trouble, 1) for trouble in TROUBLES)]
Results = dict[Case, list[Any]]
"""What each rank saw in each case."""


def run(folder: Path, world: int, cases: Sequence[Case]) -> Results:
    """All cases one after another in the same processes."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with kept_port() as port:
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, json.dumps(cases)],
                env={**env, **rank_variables(rank, world, "127.0.0.1", port)},
                cwd=folder,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]
        said = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * world
    found = [json.loads(text.splitlines()[-1]) for text in said]
    return {case: [each[number] for each in found] for number, case in enumerate(cases)}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(tmp_path_factory.mktemp("two"), 2, CASES)


def numbers(seen: Any) -> list[float]:
    return [value for step, loss, position, sums in seen for value in (step, loss, *position, *sums)]


def test_two_ranks_take_the_steps_of_one_with_twice_the_batch(two: Results, tmp_path: Path) -> None:
    # 7 samples in batches of 6: the second batch of an epoch has a single one, so that one rank has none;
    # and in batches of 2, of which a step takes three
    alone = run(tmp_path, 1, [(6, -1, "", 1), (2, -1, "", 3)])
    for case, (one,) in zip((PLAIN, ACCUMULATED), alone.values(), strict=True):
        for rank in two[case]:
            assert rank["idle"] == [1.0, 1.0], "a group that takes no part in a step must not move"
            assert numbers(rank["seen"]) == pytest.approx(numbers(one["seen"]), rel=1e-5)


@pytest.mark.parametrize("trouble", ["dropout", "one has the word", "a second loss on one"])
def test_ranks_that_do_not_train_alike_stay_alike(two: Results, trouble: str) -> None:
    first, second = two[3, -1, trouble, 1]
    assert len(first["seen"]) == 9 and numbers(first["seen"]) == numbers(second["seen"])
    assert first["idle"] == second["idle"] and (first["idle"] != [1.0, 1.0]) == (trouble == "one has the word")


def test_all_ranks_stop_at_the_same_step_whichever_was_asked(two: Results) -> None:
    assert [rank["seen"][-1][0] for rank in two[STOPPED]] == [5, 5]


def test_a_loss_that_is_no_number_on_one_rank_ends_both_at_that_step(two: Results) -> None:
    for rank in two[3, -1, "nan", 1]:
        assert "the loss became nan at step 4" in rank["error"] and len(rank["seen"]) == 3


def test_a_step_that_no_rank_has_samples_for_keeps_all_finite(two: Results) -> None:
    for rank in two[3, -1, "nothing can be read", 1]:
        losses = [loss for _, loss, *_ in rank["seen"]]
        assert losses[2] == 0 and len(losses) == 9 and all(loss > 0 for loss in losses[3:])
