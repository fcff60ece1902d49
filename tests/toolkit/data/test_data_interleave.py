"""One regularization batch after every other batch, in cycles of their own."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from toolkit.data.interleave import interleave
from toolkit.data.rng import stream

TRAIN, REG = 10, 7
REG_FROM = 100
"""Indices of regularization pictures begin here."""


def plan_of(count: int, epoch: int) -> list[list[int]]:
    """Batches of two in a drawn order."""
    indices = list(range(count))
    stream(7, epoch, "", "order").shuffle(indices)
    return [indices[start : start + 2] for start in range(0, count, 2)]


def train_of(epoch: int) -> list[list[int]]:
    return plan_of(TRAIN, epoch)


def reg_of(cycle: int) -> list[list[int]]:
    return [[REG_FROM + index for index in batch] for batch in plan_of(REG, cycle)]


def run(epochs: int) -> list[list[int]]:
    return [
        batch for epoch in range(epochs) for batch in interleave(train_of(epoch), reg_of, epoch * len(train_of(epoch)))
    ]


def test_the_two_kinds_take_turns_and_training_begins() -> None:
    mixed = interleave(train_of(0), reg_of)
    assert len(mixed) == 2 * len(train_of(0))
    assert mixed[0::2] == train_of(0)
    assert all(index >= REG_FROM for batch in mixed[1::2] for index in batch)


def test_regularization_pictures_go_through_their_own_epochs_across_those_of_the_others() -> None:
    """Five batches per epoch against four per cycle: the cycle ends in the middle of an epoch."""
    reg = run(4)[1::2]
    cycles = [reg[start : start + 4] for start in range(0, 20, 4)]
    assert cycles == [reg_of(number) for number in range(5)]
    assert all(Counter(index for batch in cycle for index in batch) == Counter(reg_of(0)[0] + reg_of(0)[1]
               + reg_of(0)[2] + reg_of(0)[3]) for cycle in cycles)  # fmt: skip
    assert cycles[0] != cycles[1], "the order is drawn anew in every cycle"


def test_an_epoch_follows_from_its_number_alone() -> None:
    """So a run resumes at any batch: the plan of epoch 3 needs nothing of the three before it."""
    per_epoch = 2 * len(train_of(0))
    assert run(4)[3 * per_epoch :] == list(interleave(train_of(3), reg_of, 3 * len(train_of(3))))


def test_few_regularization_pictures_come_again_within_an_epoch() -> None:
    mixed = interleave(train_of(0), lambda cycle: [[REG_FROM + cycle]])
    assert mixed[1::2] == [[REG_FROM], [REG_FROM + 1], [REG_FROM + 2], [REG_FROM + 3], [REG_FROM + 4]]


def test_cycles_of_varying_length_always_give_a_batch() -> None:
    lengths = [3, 2, 0]
    mixed = interleave(train_of(0), lambda cycle: [[REG_FROM + number] for number in range(lengths[cycle])], before=3)
    assert [batch[0] for batch in mixed if batch[0] >= REG_FROM] == [100, 101, 100, 100, 101]


def test_without_regularization_pictures_nothing_changes() -> None:
    assert interleave(train_of(0), lambda cycle: []) == train_of(0)


def test_batches_are_looked_up_when_they_are_asked_for() -> None:
    """A plan of a million pictures is not copied, and a resumed run asks only for what is left."""
    asked: list[int] = []

    class Watched(Sequence[list[int]]):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            return [index]

    mixed = interleave(Watched(), reg_of)
    assert len(mixed) == 10 and not asked
    assert mixed[6] == [3] and mixed[-2] == [4] and asked == [3, 4]
    assert mixed[7:9] == [reg_of(0)[3], [4]]
