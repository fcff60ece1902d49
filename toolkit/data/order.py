"""Which samples form which batch: a pure function of (keys, seed, epoch, rank, world)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.data.lazy import Lazy
from toolkit.data.rng import seed_for
from toolkit.data.scanning.memory import give_back


class Plan(Lazy[np.ndarray]):
    """The batches of one epoch for one rank, each cut out of one array of samples when it is asked for."""

    def __init__(self, samples: np.ndarray, bounds: np.ndarray, rank: int = 0, world: int = 1) -> None:
        """`samples`: all of the epoch, batch after batch; `bounds` [M, 2]: where each batch of all ranks lies."""
        self._samples, self._bounds, self._rank, self._world = samples, bounds, rank, world

    def __len__(self) -> int:
        return len(self._bounds)

    def at(self, place: int) -> np.ndarray:
        """One of them."""
        start, stop = self._bounds[place]
        return share(self._samples[start:stop], self._rank, self._world)

    def of(self, rank: int, world: int) -> Plan:
        """The same batches, for another rank."""
        return Plan(self._samples, self._bounds, rank, world)

    def spare(self, place: int) -> np.ndarray:
        """A sample of one of them, for a rank that has no part in it."""
        start = self._bounds[place][0]
        return self._samples[start : start + 1]

    def after(self, count: int) -> np.ndarray:
        """The samples of all batches but the first `count`, over all ranks, ascending."""
        parts = [self._samples[start:stop] for start, stop in self._bounds[count:]]
        return np.sort(np.concatenate(parts)) if parts else self._samples[:0]


def plan(
    keys: np.ndarray,
    batch_sizes: int | np.ndarray,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    chances: np.ndarray | None = None,
    among: np.ndarray | None = None,
) -> Plan:
    """The batches of one epoch as arrays of indices into `keys`, in the order in which this rank trains on them.

    Samples share a batch if their keys (whole numbers) and batch sizes are equal. Every index comes up exactly once per
    epoch over all ranks; who is with whom and the order of batches are drawn anew for every epoch. The last batch of a
    bucket may be short; it is neither padded nor left out.

    `chances` are the shares of epochs that an index comes up in, where that is not every epoch: of all indices with the
    chance 0.25, each epoch draws a quarter. `among` are the only indices that come up, ascending.

    With several ranks, batches of `batch size * world` are drawn and cut into one part per rank (`share`), so N ranks
    with batch size b see what one rank with batch size N * b sees, and every rank has equally many batches. Parts of a
    short batch differ by at most one sample; if it has fewer samples than there are ranks, the last ranks get an empty
    array there, and train on a `spare` sample with weight 0 to keep in step.
    """
    sizes = np.broadcast_to(np.asarray(batch_sizes, np.int64) * world, len(keys))
    assert 0 <= rank < world and (sizes > 0).all(), "a batch holds at least one sample"
    # bits of a named generator, because they stay the same in every version of numpy; its permutations may not
    bits = np.random.PCG64(seed_for(seed, epoch, "", "order"))
    ranks = bits.random_raw(len(keys))
    members = np.arange(len(keys)) if among is None else among
    members = members.astype(np.int32 if len(keys) < 2**31 else np.int64)
    if chances is not None:
        members = _drawn(members, chances[members], bits)
    samples, starts, counts = _grouped(members, ranks, [keys[members], sizes[members]])
    size = sizes[samples[starts]] if len(starts) else starts
    num_batches = -(-counts // size)
    # the number of each batch within its bucket
    number = np.arange(num_batches.sum()) - np.repeat(np.cumsum(num_batches) - num_batches, num_batches)
    first = np.repeat(starts, num_batches) + number * np.repeat(size, num_batches)
    last = np.minimum(first + np.repeat(size, num_batches), np.repeat(starts + counts, num_batches))
    order = np.argsort(bits.random_raw(len(first)), kind="stable")
    bounds = np.stack([first, last], axis=1).astype(members.dtype)[order]
    del ranks, sizes, size, num_batches, number, first, last, order
    give_back(len(keys))
    return Plan(samples, bounds, rank, world)


def share(batch: np.ndarray, rank: int, world: int) -> np.ndarray:
    """The part of a global batch that belongs to one rank: contiguous, sizes differ by at most one."""
    part, rest = divmod(len(batch), world)
    start = rank * part + min(rank, rest)
    return batch[start : start + part + (rank < rest)]


def _drawn(members: np.ndarray, chances: np.ndarray, bits: np.random.PCG64) -> np.ndarray:
    """The members of this epoch: of those with one chance, its share, rounded up or down at random."""
    kept = np.ones(len(members), bool)
    for chance in np.unique(chances[chances < 1]):
        some = np.flatnonzero(chances == chance)
        # 53 of the 64 bits are a share in [0, 1)
        count = int(float(chance) * len(some) + (int(bits.random_raw()) >> 11) * 2.0**-53)
        kept[some] = False
        kept[some[np.argsort(bits.random_raw(len(some)), kind="stable")[:count]]] = True
    return members[kept]


def _grouped(
    members: np.ndarray, ranks: np.ndarray, keys: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Members by group, within one by their ranks; and where each group begins and how many it has."""
    group = np.zeros(len(members), np.int64)
    for key in keys:
        _, place = np.unique(key, return_inverse=True)
        group = group * (int(place.max(initial=0)) + 1) + place
    order = np.lexsort((ranks[members], group))
    _, starts, counts = np.unique(group[order], return_index=True, return_counts=True)
    return members[order], starts, counts
