"""The order of a run whose batches change their size: with real data sets, every sample once per epoch all the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest
import torch
from PIL import Image

from toolkit.config.sections.dataset import DatasetSection
from toolkit.context import Context
from toolkit.data.course import Change, Course
from toolkit.data.datasets import Items, read_datasets
from toolkit.data.loader import Loader, Position
from toolkit.training.turns import Order, Turn, global_sizes

Seen = list[list[str]]
"""Names of the samples of each batch, over all ranks."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """13 pictures in two buckets, 9 in one, and 7 for regularization."""
    root = tmp_path_factory.mktemp("turns")
    made = []
    for name, count in (("one", 13), ("two", 9), ("reg", 7)):
        made.append(root / name)
        made[-1].mkdir()
        for number in range(count):
            size = (64, 32) if number % 3 == 0 and name == "one" else (32, 32)
            Image.new("RGB", size, (number, 0, 0)).save(made[-1] / f"{name}{number}.png")
    return made


def read(folders: Sequence[Path], batch_size: int) -> Items:
    sections = [
        DatasetSection.model_validate(
            {"folder_path": str(folder), "resolution": 32, "default_caption": "a", "is_reg": folder.name == "reg"}
        )
        for folder in folders
    ]
    return read_datasets(sections, 16, batch_size, None)


def go_on(
    folders: Sequence[Path], world: int, batch_size: int, start: Position, course: Course, count: int
) -> tuple[Seen, Position, Course]:
    """The next `count` batches of all ranks, each with an order of its own as in a process of its own."""
    data = read(folders, batch_size)
    contexts = [Context(torch.device("cpu"), torch.float32, 5, rank, world) for rank in range(world)]
    loaders: list[Loader[Turn, Turn]] = []
    for context in contexts:
        own = Course.from_list(course.to_list())
        own.go_on(start, global_sizes(data, context))
        loaders.append(Loader(lambda _, turn: turn, Order(data, context, None, own).turns, start, 0, 1))
    seen: Seen = []
    for _ in range(count):
        got = [next(loader) for loader in loaders]
        (start,) = {position for position, _ in got}
        seen.append([str(data[place].record.name) for _, turn in got if not turn.is_spare for place in turn.indices])
    return seen, start, own


def run(folders: Sequence[Path], *parts: tuple[int, int, int]) -> tuple[Seen, Course]:
    """Batches of (ranks, batch size, number of batches) one after another, each continued from a state file."""
    seen: Seen = []
    position, course = Position(0, 0), Course()
    for world, batch_size, count in parts:
        more, position, course = go_on(folders, world, batch_size, position, course, count)
        seen += more
    return seen, course


CHANGES = [
    [(2, 2, 3), (1, 2, 50)],
    [(1, 2, 5), (2, 2, 50)],
    [(2, 2, 4), (3, 2, 40)],
    [(2, 1, 7), (3, 2, 2), (1, 1, 4), (1, 3, 60)],
    [(1, 4, 20), (2, 1, 9), (1, 1, 90)],
    [(2, 2, 31), (4, 2, 1), (2, 2, 40)],
]


@pytest.mark.parametrize("parts", CHANGES)
def test_every_sample_comes_once_per_epoch_whatever_changes(
    folders: list[Path], parts: list[tuple[int, int, int]]
) -> None:
    seen, course = run(folders, *parts)
    names = list(chain(*seen))
    train, reg = ([name for name in names if name.startswith("reg") == kind] for kind in (False, True))
    for kind, size in ((train, 22), (reg, 7)):
        assert len(kind) > 2 * size
        epochs = [kind[start : start + size] for start in range(0, len(kind), size)]
        assert all(len(set(epoch)) == len(epoch) for epoch in epochs)
    assert len(course.changes) == len(parts)
    # regularization pictures still follow every other batch
    assert [batch[0].startswith("reg") for batch in seen] == [number % 2 == 1 for number in range(len(seen))]
    # and no batch mixes sizes
    assert all(len({is_wide(name) for name in batch}) == 1 for batch in seen)


def is_wide(name: str) -> bool:
    return name.startswith("one") and int(name[3:].removesuffix(".png")) % 3 == 0


@pytest.mark.parametrize("parts", CHANGES[:3])
def test_without_regularization_pictures_too(folders: list[Path], parts: list[tuple[int, int, int]]) -> None:
    names = list(chain(*run(folders[:2], *parts)[0]))
    assert all(len(set(names[start : start + 22])) == len(names[start : start + 22]) for start in range(0, 66, 22))


def test_the_same_number_of_samples_in_all_is_no_change(folders: list[Path]) -> None:
    whole, _ = run(folders, (1, 4, 30))
    seen, course = run(folders, (2, 2, 7), (1, 4, 4), (4, 1, 19))
    assert seen == whole and course.changes == [Change(0, 0, (4, 4, 4))]


def test_going_back_before_anything_was_trained_is_no_change(folders: list[Path]) -> None:
    seen, course = run(folders, (2, 2, 7), (3, 1, 0), (2, 2, 9))
    assert seen == run(folders, (2, 2, 16))[0] and len(course.changes) == 1


def test_the_epoch_after_a_change_is_a_plain_one(folders: list[Path]) -> None:
    _, course = run(folders[:2], (2, 2, 3), (1, 3, 2))
    changed, *_ = go_on(folders[:2], 1, 3, Position(1, 0), course, 9)
    plain, *_ = go_on(folders[:2], 1, 3, Position(1, 0), Course(), 9)
    assert changed == plain


def test_a_state_without_a_course_goes_on_in_the_plan_of_today(folders: list[Path]) -> None:
    whole, _ = run(folders, (1, 4, 20))
    seen, _, course = go_on(folders, 1, 4, Position(0, 9), Course(), 4)
    assert seen == whole[9:13] and course.changes == [Change(0, 0, (4, 4, 4))]


def test_another_number_of_data_sets_begins_a_course_anew() -> None:
    course = Course([Change(0, 0, (4, 4)), Change(1, 3, (2, 2))])
    assert not course.go_on(Position(2, 1), (2, 2, 2))
    assert course.changes == [Change(0, 0, (2, 2, 2))]


def test_ranks_with_other_pictures_have_another_fingerprint(folders: list[Path]) -> None:
    context = Context(torch.device("cpu"), torch.float32, 5)

    def fingerprint(*chosen: Path) -> bytes:
        return Order(read(chosen, 2), context, None).fingerprint()

    assert fingerprint(*folders) == fingerprint(*folders)
    assert len({fingerprint(*folders), fingerprint(*folders[:2]), fingerprint(*folders[1:])}) == 3
