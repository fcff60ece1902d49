"""The plan of an epoch: who is in which batch, on which rank."""

from collections import Counter
from itertools import chain, groupby

import pytest

from toolkit.data.order import plan, share

KEYS = [(512, 512)] * 13 + [(640, 384)] * 7 + [(384, 640)]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 50])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_index_once_per_epoch_over_all_ranks(batch_size: int, world: int) -> None:
    for epoch in range(5):
        ranks = [plan(KEYS, batch_size, 7, epoch, rank, world) for rank in range(world)]
        seen = Counter(index for batches in ranks for batch in batches for index in batch)
        assert seen == Counter(range(len(KEYS)))
        assert len({len(batches) for batches in ranks}) == 1
        assert all(len(batch) <= batch_size for batches in ranks for batch in batches)


def test_a_batch_holds_one_bucket() -> None:
    assert all(len({KEYS[index] for index in batch}) == 1 for batch in plan(KEYS, 4, 0, 0))


def test_short_batches_are_kept_and_not_padded() -> None:
    assert sorted(len(batch) for batch in plan(KEYS, 4, 0, 0)) == [1, 1, 3, 4, 4, 4, 4]


def test_own_batch_size_per_item() -> None:
    sizes = [1] * 6 + [3] * 15
    for batch in plan(KEYS, sizes, 0, 0):
        assert len({sizes[index] for index in batch}) == 1
        assert len(batch) <= sizes[batch[0]]


@pytest.mark.parametrize(("world", "size"), [(2, 1), (2, 3), (3, 2), (4, 4)])
def test_ranks_together_see_what_one_rank_with_a_large_batch_sees(world: int, size: int) -> None:
    for epoch in range(4):
        alone = plan(KEYS, size * world, 3, epoch)
        ranks = [plan(KEYS, size, 3, epoch, rank, world) for rank in range(world)]
        assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == alone


def test_parts_of_a_short_batch_are_even() -> None:
    assert [share([1, 2, 3, 4, 5], rank, 3) for rank in range(3)] == [[1, 2], [3, 4], [5]]
    assert [share([1], rank, 3) for rank in range(3)] == [[1], [], []]


def test_redrawn_every_epoch_and_for_every_seed() -> None:
    def groups(seed: int, epoch: int) -> set[frozenset[int]]:
        return {frozenset(batch) for batch in plan(KEYS, 4, seed, epoch)}

    assert groups(0, 0) != groups(0, 1)
    assert groups(0, 0) != groups(1, 0)


def test_buckets_are_mixed_over_the_epoch() -> None:
    keys = ["a"] * 40 + ["b"] * 40
    order = [keys[batch[0]] for batch in plan(keys, 2, 0, 0)]
    assert len(list(groupby(order))) > 6


def test_same_plan_every_time() -> None:
    assert plan(KEYS, 4, 5, 2) == plan(list(KEYS), [4] * len(KEYS), 5, 2)
