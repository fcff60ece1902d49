"""Which samples form which batch: a pure function of (keys, seed, epoch, rank, world)."""

from collections.abc import Hashable, Sequence

from toolkit.data.rng import stream


def plan(
    keys: Sequence[Hashable],
    batch_sizes: int | Sequence[int],
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
) -> list[list[int]]:
    """The batches of one epoch as lists of indices into `keys`, in the order in which this rank trains on them.

    Samples share a batch if their keys (and batch sizes) are equal. Every index comes up exactly once per epoch over
    all ranks; who is with whom and the order of batches are drawn anew for every epoch. The last batch of a bucket may
    be short; it is neither padded nor left out.

    With several ranks, batches of `batch size * world` are drawn and cut into one part per rank (`share`), so N ranks
    with batch size b see what one rank with batch size N * b sees, and every rank has equally many batches. Parts of a
    short batch differ by at most one sample; if it has fewer samples than there are ranks, the last ranks get an empty
    list there, and whoever trains has to run a sample of weight zero to keep the ranks in step.
    """
    sizes = [batch_sizes] * len(keys) if isinstance(batch_sizes, int) else batch_sizes
    assert len(sizes) == len(keys) and 0 <= rank < world
    buckets: dict[tuple[Hashable, int], list[int]] = {}
    for index, (key, size) in enumerate(zip(keys, sizes, strict=True)):
        assert size > 0, "a batch holds at least one sample"
        buckets.setdefault((key, size * world), []).append(index)
    rng = stream(seed, epoch, "", "order")
    batches: list[list[int]] = []
    for (_, size), members in buckets.items():
        rng.shuffle(members)
        batches += [members[start : start + size] for start in range(0, len(members), size)]
    rng.shuffle(batches)
    return batches if world == 1 else [share(batch, rank, world) for batch in batches]


def share(batch: Sequence[int], rank: int, world: int) -> list[int]:
    """The part of a global batch that belongs to one rank: contiguous, sizes differ by at most one."""
    part, rest = divmod(len(batch), world)
    start = rank * part + min(rank, rest)
    return list(batch[start : start + part + (rank < rest)])
