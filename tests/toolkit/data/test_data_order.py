"""The plan of an epoch: who is in which batch, on which rank."""

from collections import Counter
from itertools import chain, groupby

import numpy as np
import pytest

from toolkit.data.order import Plan, plan, share

KEYS = np.array([3] * 13 + [-7] * 7 + [100])


def listed(batches: Plan) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 50])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_index_once_per_epoch_over_all_ranks(batch_size: int, world: int) -> None:
    for epoch in range(5):
        ranks = [listed(plan(KEYS, batch_size, 7, epoch, rank, world)) for rank in range(world)]
        seen = Counter(index for batches in ranks for batch in batches for index in batch)
        assert seen == Counter(range(len(KEYS)))
        assert len({len(batches) for batches in ranks}) == 1
        assert all(len(batch) <= batch_size for batches in ranks for batch in batches)


def test_a_batch_holds_one_bucket() -> None:
    assert all(len(set(KEYS[batch].tolist())) == 1 for batch in plan(KEYS, 4, 0, 0))


def test_short_batches_are_kept_and_not_padded() -> None:
    assert sorted(map(len, plan(KEYS, 4, 0, 0))) == [1, 1, 3, 4, 4, 4, 4]


def test_own_batch_size_per_item() -> None:
    sizes = np.array([1] * 6 + [3] * 15)
    batches = plan(KEYS, sizes, 0, 0)
    for batch in batches:
        assert len(set(sizes[batch].tolist())) == 1
        assert len(batch) <= sizes[batch[0]]
    # six alone; seven of the first bucket, seven of the second and the last one in threes
    assert len(batches) == 6 + 3 + 3 + 1


@pytest.mark.parametrize(("world", "size"), [(2, 1), (2, 3), (3, 2), (4, 4)])
def test_ranks_together_see_what_one_rank_with_a_large_batch_sees(world: int, size: int) -> None:
    for epoch in range(4):
        alone = listed(plan(KEYS, size * world, 3, epoch))
        ranks = [listed(plan(KEYS, size, 3, epoch, rank, world)) for rank in range(world)]
        assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == alone


def test_parts_of_a_short_batch_are_even() -> None:
    five, one = np.array([1, 2, 3, 4, 5]), np.array([1])
    assert [share(five, rank, 3).tolist() for rank in range(3)] == [[1, 2], [3, 4], [5]]
    assert [share(one, rank, 3).tolist() for rank in range(3)] == [[1], [], []]


def test_redrawn_every_epoch_and_for_every_seed() -> None:
    def groups(seed: int, epoch: int) -> set[frozenset[int]]:
        return {frozenset(batch) for batch in listed(plan(KEYS, 4, seed, epoch))}

    assert groups(0, 0) != groups(0, 1)
    assert groups(0, 0) != groups(1, 0)


def test_everyone_meets_everyone() -> None:
    pairs: Counter[tuple[int, int]] = Counter()
    for epoch in range(600):
        for batch in listed(plan(np.zeros(6, int), 2, 0, epoch)):
            first, second = sorted(batch)
            pairs[first, second] += 1
    # each of the 15 pairs is expected 120 times
    assert len(pairs) == 15 and min(pairs.values()) > 80 and max(pairs.values()) < 160


def test_buckets_are_mixed_over_the_epoch() -> None:
    keys = np.array([0] * 40 + [1] * 40)
    order = [int(keys[batch[0]]) for batch in plan(keys, 2, 0, 0)]
    assert len(list(groupby(order))) > 6


def test_same_plan_every_time_and_on_every_machine() -> None:
    batches = listed(plan(KEYS, 4, 5, 2))
    assert batches == listed(plan(KEYS.astype(np.int32), np.full(len(KEYS), 4, np.int32), 5, 2))
    # what the keys are called does not matter, only which are equal and how they are ordered
    assert batches == listed(plan(KEYS * 1000, 4, 5, 2))
    assert listed(plan(np.zeros(8, int), 3, 1, 2)) == [[0, 7, 1], [4, 2], [3, 6, 5]]


def test_any_batch_by_its_number() -> None:
    batches = plan(KEYS, 4, 5, 2)
    assert isinstance(batches[0], np.ndarray)
    assert [batch.tolist() for batch in batches[2:5]] == listed(batches)[2:5]
    assert batches[-1].tolist() == listed(batches)[-1]
    with pytest.raises(IndexError):
        batches[len(batches)]


def test_an_index_with_a_chance_comes_up_in_its_share_of_epochs() -> None:
    chances = np.array([1.0] * 10 + [0.5] * 7 + [0.25] * 4, np.float32)
    counts, totals = np.zeros(21), set()
    for epoch in range(400):
        seen = list(chain(*listed(plan(KEYS, 4, 3, epoch, chances=chances))))
        assert len(set(seen)) == len(seen)
        counts[seen] += 1
        totals.add((sum(10 <= index < 17 for index in seen), sum(index >= 17 for index in seen)))
    assert (counts[:10] == 400).all()
    assert np.abs(counts[10:17] / 400 - 0.5).max() < 0.1 and np.abs(counts[17:] / 400 - 0.25).max() < 0.1
    # a share that is no whole number is rounded up or down
    assert totals == {(3, 1), (4, 1)}


def test_chances_are_the_same_on_all_ranks() -> None:
    chances = np.where(np.arange(21) % 2, 1.0, 0.3)
    alone = listed(plan(KEYS, 4, 3, 1, chances=chances))
    ranks = [listed(plan(KEYS, 2, 3, 1, rank, 2, chances)) for rank in range(2)]
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == alone
    assert len(list(chain(*alone))) in (10 + 3, 10 + 4)


def test_among_some_only() -> None:
    some = np.array([1, 4, 14, 20])
    assert sorted(chain(*listed(plan(KEYS, 2, 0, 0, among=some)))) == some.tolist()
    chances = np.zeros(21)
    chances[[1, 20]] = 1.0
    assert sorted(chain(*listed(plan(KEYS, 2, 0, 0, chances=chances, among=some)))) == [1, 20]


def test_nothing_to_plan() -> None:
    assert not plan(np.zeros(0, int), 4, 0, 0)
    assert not plan(KEYS, 4, 0, 0, among=np.zeros(0, int))


def test_an_epoch_of_many_samples_is_small() -> None:
    batches = plan(np.arange(100_000) % 40, 1, 0, 0)
    assert len(batches) == 100_000
    assert sum(part.nbytes for part in vars(batches).values() if isinstance(part, np.ndarray)) <= 16 * 100_000
