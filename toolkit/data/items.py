"""Records become items: one per picture, resolution, mirroring and repeat; each is made when it is asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, product
from math import ceil, floor

import numpy as np

from toolkit.data.bucket import Size, bucket_for
from toolkit.data.frames import Clip, FrameRule
from toolkit.data.item import Item, item_id
from toolkit.data.lazy import Lazy
from toolkit.data.pictures.references import NONE, References
from toolkit.data.records import ListedRecords, Record, Records
from toolkit.data.treatment import PLAIN, Treatment

SizeRule = Callable[[int, int, int], Size]
"""(width, height, resolution) -> the size that a picture is trained at."""
ReferenceRule = Callable[[int, str], References]
"""(row of the record, id of the item) -> what conditions the item."""


class DatasetItems(Lazy[Item]):
    """All items of one data set: every resolution, mirroring and repeat of a record is an item of its own.

    `flip_x` and `flip_y` add mirrored copies beside the upright ones: twice the items, four times with both.
    """

    def __init__(
        self,
        records: Records,
        resolutions: Sequence[int],
        size_of: SizeRule,
        treatment: Treatment = PLAIN,
        *,
        repeats: int = 1,
        flip_x: bool = False,
        flip_y: bool = False,
        references: ReferenceRule | None = None,
        masks: Sequence[Record] | None = None,
        pairs: Sequence[Record] | None = None,
        clip_images: Sequence[Record] | None = None,
        weight: float = 1.0,
    ) -> None:
        """`masks`, `pairs` and `clip_images` have one record for each of `records`.

        `weight` is how often an item comes per epoch, as far as that is no whole number by chance (`chances`).
        """
        self.records, self.resolutions, self.treatment = records, tuple(resolutions), treatment
        self.references, self.masks, self.pairs, self.clip_images = references, masks, pairs, clip_images
        flips = product((False, True) if flip_y else (False,), (False, True) if flip_x else (False,))
        self._num_repeats, self._num_sure = repeats * ceil(weight), repeats * floor(weight)
        self._chance = weight - floor(weight)
        self._copies = [(y, x, repeat) for y, x in flips for repeat in range(self._num_repeats)]
        sizes = [_sizes(records, size_of, resolution) for resolution in self.resolutions]
        self._sizes = np.stack(sizes) if sizes else np.zeros((0, len(records), 2), np.int32)

    def __len__(self) -> int:
        return len(self.resolutions) * len(self.records) * len(self._copies)

    def at(self, place: int) -> Item:
        """One of them."""
        rest, copy = divmod(place, len(self._copies))
        number, row = divmod(rest, len(self.records))
        mirror_y, mirror_x, repeat = self._copies[copy]
        record, resolution, dataset = self.records[row], self.resolutions[number], self.treatment.dataset
        name = item_id(dataset, record.name, resolution, mirror_x, mirror_y, repeat)
        return Item(
            record,
            (int(self._sizes[number, row, 0]), int(self._sizes[number, row, 1])),
            resolution,
            self.treatment,
            flip_x=mirror_x,
            flip_y=mirror_y,
            repeat=repeat,
            references=self.references(row, name) if self.references else NONE,
            mask=self.masks[row] if self.masks is not None else None,
            pair=self.pairs[row] if self.pairs is not None else None,
            clip_image=self.clip_images[row] if self.clip_images is not None else None,
        )

    def sizes(self) -> np.ndarray:
        """int32 [N, 3]: width, height and number of frames (0 for pictures) of every item."""
        table = np.zeros((*self._sizes.shape[:2], 3), np.int32)
        table[..., :2] = self._sizes
        if self.treatment.frames is not None:
            table[..., 2] = _frame_counts(self.treatment.frames, self.records.clips)
        return np.repeat(table.reshape(-1, 3), len(self._copies), axis=0)

    def ids(self) -> Iterator[str]:
        """The ids of all items, without making these."""
        for resolution in self.resolutions:
            for name in self.records.names():
                for mirror_y, mirror_x, repeat in self._copies:
                    yield item_id(self.treatment.dataset, name, resolution, mirror_x, mirror_y, repeat)

    def rows(self) -> np.ndarray:
        """int64 [N]: the row of every item's record."""
        return np.tile(np.repeat(np.arange(len(self.records)), len(self._copies)), len(self.resolutions))

    def chances(self) -> np.ndarray:
        """float32 [N]: in which share of the epochs every item comes up."""
        repeats = np.arange(len(self._copies)) % max(1, self._num_repeats)
        each = np.where(repeats < self._num_sure, 1.0, self._chance).astype(np.float32)
        return np.tile(each, len(self.resolutions) * len(self.records))

    def digests(self) -> np.ndarray:
        """uint64 [N, 2]: the hash of every item's picture, see `Records.digests`."""
        return self.records.digests()[self.rows()]

    def views(self) -> np.ndarray:
        """int64 [N]: equal numbers where size and mirroring are the same."""
        _, size = np.unique(self._sizes.astype(np.int64) @ (1 << 32, 1), return_inverse=True)
        flips = np.arange(len(self._copies)) // max(1, self._num_repeats)
        num_flips = len(self._copies) // max(1, self._num_repeats)
        table = size.reshape(*self._sizes.shape[:2], 1) * num_flips + flips
        return np.asarray(table.reshape(-1), np.int64)


class Items(Lazy[Item]):
    """All samples of a run, those of one data set after those of another."""

    def __init__(self, datasets: Sequence[DatasetItems], problems: Iterable[str] = ()) -> None:
        self.datasets, self.problems = list(datasets), list(problems)
        """`problems`: what was left out or is missing, one line each."""
        self._starts = [0, *accumulate(map(len, self.datasets))]
        self._kept: np.ndarray | None = None

    def __len__(self) -> int:
        return self._starts[-1] if self._kept is None else len(self._kept)

    def at(self, place: int) -> Item:
        """One of them."""
        if self._kept is not None:
            place = int(self._kept[place])
        number = bisect_right(self._starts, place) - 1
        return self.datasets[number].at(place - self._starts[number])

    def without(self, left_out: Iterable[int] | np.ndarray) -> Items:
        """These items but for those at some places."""
        rest = Items(self.datasets, self.problems)
        kept = np.arange(self._starts[-1]) if self._kept is None else self._kept
        places = left_out if isinstance(left_out, np.ndarray) else np.fromiter(left_out, np.int64)
        rest._kept = np.delete(kept, places)
        return rest

    def sizes(self) -> np.ndarray:
        """int32 [N, 3]: width, height and number of frames (0 for pictures) of every item."""
        return self.gathered([items.sizes() for items in self.datasets], np.zeros((0, 3), np.int32))

    def keys(self) -> np.ndarray:
        """int64 [N]: equal numbers where `sizes` are equal, so that items may share a batch."""
        return np.unique(_packed(self.sizes()), return_inverse=True)[1]

    def batch_sizes(self) -> np.ndarray:
        """int32 [N]."""
        each = [np.full(len(items), items.treatment.batch_size, np.int32) for items in self.datasets]
        return self.gathered(each, np.zeros(0, np.int32))

    def is_reg(self) -> np.ndarray:
        """bool [N]: which items are of a regularization set."""
        return self.gathered(
            [np.full(len(items), items.treatment.is_reg) for items in self.datasets], np.zeros(0, bool)
        )

    def chances(self) -> np.ndarray | None:
        """float32 [N]: in which share of the epochs every item comes up; None if all come up in all of them."""
        if all((items.chances() == 1).all() for items in self.datasets):
            return None
        return self.gathered([items.chances() for items in self.datasets], np.zeros(0, np.float32))

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of the data set, int32 [N], and row of the record in it, int64 [N], of every item."""
        numbers = [np.full(len(items), number, np.int32) for number, items in enumerate(self.datasets)]
        rows = [items.rows() for items in self.datasets]
        return self.gathered(numbers, np.zeros(0, np.int32)), self.gathered(rows, np.zeros(0, np.int64))

    def digests(self) -> np.ndarray:
        """uint64 [N, 2]: the hash of every item's picture, see `Records.digests`."""
        return self.gathered([items.digests() for items in self.datasets], np.zeros((0, 2), np.uint64))

    def views(self) -> tuple[np.ndarray, list[Item]]:
        """int32 [N], and an example for each number in it.

        Items with equal numbers are of one data set, and size and mirroring are the same, so that they differ only in
        their pictures (and in what belongs to these: moments of a video, references, masks, ...), from which the middle
        crop follows, and in what is drawn for each.
        """
        each, taken = [], 0
        for items in self.datasets:
            views = items.views()
            each.append(views + taken)
            taken += int(views.max(initial=-1)) + 1
        _, first, inverse = np.unique(
            self.gathered(each, np.zeros(0, np.int64)), return_index=True, return_inverse=True
        )
        return inverse.astype(np.int32), [self[place] for place in first.tolist()]

    def gathered(self, each: Sequence[np.ndarray], nothing: np.ndarray) -> np.ndarray:
        """What every data set has, without the items left out."""
        table = np.concatenate(each) if each else nothing
        return table if self._kept is None else table[self._kept]

    @property
    def buckets(self) -> dict[str, int]:
        """How many items each bucket has: "64x48" or, with frames, "64x48x17"; from the smallest to the largest."""
        sizes = self.sizes()
        _, first, counts = np.unique(_packed(sizes), return_index=True, return_counts=True)
        found = {tuple(size): count for size, count in zip(sizes[first].tolist(), counts.tolist(), strict=True)}
        table: Counter[str] = Counter()
        for size in sorted(found, key=lambda size: (size[0] * size[1], size[2], size)):
            table["x".join(map(str, size if size[2] > 1 else size[:2]))] += found[size]
        return dict(table)

    def describe(self) -> list[str]:
        """What was found: problems first, then the table of buckets."""
        buckets = self.buckets
        table = ", ".join(f"{name}: {count}" for name, count in buckets.items())
        samples = f"{len(self)} training sample{'s' * (len(self) != 1)}"
        return [*self.problems, f"{samples} in {len(buckets)} bucket{'s' * (len(buckets) != 1)} ({table})"]


def expand(
    records: list[Record] | Records, resolutions: Sequence[int], divisor: int, treatment: Treatment = PLAIN
) -> DatasetItems:
    """The items of some records at sizes by `bucket_for`."""
    listed = ListedRecords(records) if isinstance(records, list) else records
    return DatasetItems(listed, resolutions, partial(_bucket, divisor=divisor), treatment)


def _bucket(width: int, height: int, resolution: int, divisor: int) -> Size:
    return bucket_for(width, height, resolution, divisor)


def _sizes(records: Records, size_of: SizeRule, resolution: int) -> np.ndarray:
    """int32 [N, 2]: the rule is asked once for every size that comes up."""
    pairs = records.widths.astype(np.int64) << 32 | records.heights
    unique, where = np.unique(pairs, return_inverse=True)
    sizes = [size_of(pair >> 32, pair & 0xFFFFFFFF, resolution) for pair in unique.tolist()]
    return np.array(sizes, np.int32).reshape(-1, 2)[where.reshape(-1)]


def _frame_counts(rule: FrameRule, clips: np.ndarray) -> np.ndarray:
    """int32 [N]: the rule is asked once for every length that comes up; a still picture is one frame."""
    counts = np.full(len(clips), rule.count(None), np.int32)
    is_clip = ~np.isnan(clips[:, 0])
    unique, where = np.unique(clips[is_clip, 0] + 1j * clips[is_clip, 1], return_inverse=True)
    found = [rule.count(Clip(clip.real, clip.imag)) for clip in unique.tolist()]
    counts[is_clip] = np.array(found, np.int32)[where.reshape(-1)]
    return counts


def _packed(sizes: np.ndarray) -> np.ndarray:
    """int64 [N]: one number for each size [N, 3]; numbers are sorted faster than rows."""
    width, height, frames = sizes.astype(np.int64).T
    return (width << 40) | (height << 18) | frames
