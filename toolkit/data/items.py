"""Records become items: one per picture, resolution, mirroring and repeat, each knowing its bucket."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from toolkit.data.bucket import Box, Size, bucket_for, crop_for, square_for
from toolkit.data.caption import CaptionRule, caption_for
from toolkit.data.rng import stream
from toolkit.data.scan import Record

PLAIN = CaptionRule()


@dataclass(frozen=True, slots=True)
class Item:
    """One sample of an epoch."""

    id: str
    """Stable name of the sample; all its randomness hangs on it."""
    record: Record
    size: Size
    """Width and height that it is trained at."""
    resolution: int
    dataset: int = 0
    """Number of its data set in the config."""
    flip_x: bool = False
    flip_y: bool = False
    random_crop: bool = False
    caption: CaptionRule = PLAIN
    weight: float = 1.0

    @property
    def bucket_key(self) -> Size:
        """Items with equal keys may share a batch."""
        return self.size

    def box(self, seed: int = 0, epoch: int = 0) -> Box:
        """The part of the picture that is seen in this epoch."""
        if not self.random_crop:
            return crop_for(self.record.width, self.record.height, self.size)
        rng = stream(seed, epoch, self.id, "crop")
        return crop_for(self.record.width, self.record.height, self.size, (rng.random(), rng.random()))

    def text(self, seed: int, epoch: int) -> str:
        """The caption that is trained on in this epoch."""
        return caption_for(self.record.caption, self.caption, stream(seed, epoch, self.id, "caption"))


def expand(
    records: Sequence[Record],
    resolutions: Sequence[int],
    divisor: int,
    *,
    dataset: int = 0,
    repeats: int = 1,
    flip_x: bool = False,
    flip_y: bool = False,
    scale: float = 1.0,
    square_crop: bool = False,
    random_crop: bool = False,
    caption: CaptionRule = PLAIN,
    weight: float = 1.0,
) -> list[Item]:
    """All items of one data set; every resolution, mirroring and repeat is an item of its own.

    `flip_x` and `flip_y` add mirrored copies beside the upright ones: twice the items, four times with both.
    """
    size_of = square_for if square_crop else bucket_for
    copies = [
        (flip, repeat)
        for flip in product((False, True) if flip_y else (False,), (False, True) if flip_x else (False,))
        for repeat in range(repeats)
    ]
    return [
        Item(
            id=f"{dataset}:{record.name}@{resolution}{'y' * mirror_y}{'x' * mirror_x}#{repeat}",
            record=record,
            size=size,
            resolution=resolution,
            dataset=dataset,
            flip_x=mirror_x,
            flip_y=mirror_y,
            random_crop=random_crop,
            caption=caption,
            weight=weight,
        )
        for resolution in resolutions
        for record in records
        for size in [size_of(record.width, record.height, resolution, divisor, scale)]
        for (mirror_y, mirror_x), repeat in copies
    ]


def bucket_table(items: Iterable[Item]) -> dict[Size, int]:
    """How many items each size has, from the smallest size to the largest."""
    counts = Counter(item.size for item in items)
    return dict(sorted(counts.items(), key=lambda entry: (entry[0][0] * entry[0][1], entry[0])))
