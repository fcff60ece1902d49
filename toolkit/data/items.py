"""Records become items: one per picture or video, resolution, mirroring and repeat, each knowing its bucket."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from toolkit.data.bucket import Box, Size, bucket_for, crop_for, square_for
from toolkit.data.caption import CaptionRule, caption_for
from toolkit.data.frames import FrameRule
from toolkit.data.references import NONE, References
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
    frames: FrameRule | None = None
    """Which frames a model for video gets; None for a model for pictures."""
    references: References = NONE

    @property
    def num_frames(self) -> int:
        """F of its pixels; 0 if they are a picture [H, W]."""
        return self.frames.count(self.record.clip) if self.frames else 0

    @property
    def bucket_key(self) -> tuple[Size, int, int]:
        """Items with equal keys may share a batch, as far as their pixels go."""
        return self.size, self.num_frames, len(self.references.pictures) + self.references.first_frame

    def times(self, seed: int = 0) -> tuple[float, ...]:
        """The moments of its frames in a video; the same in every epoch."""
        if self.frames is None or self.record.clip is None:
            return ()
        return self.frames.times(self.record.clip, stream(seed, 0, self.id, "frames").random())

    @property
    def fps(self) -> float:
        """Frames per second among those that are trained."""
        return self.frames.rate(self.record.clip) if self.frames else 0.0

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
    frames: FrameRule | None = None,
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
            frames=frames,
        )
        for resolution in resolutions
        for record in records
        for size in [size_of(record.width, record.height, resolution, divisor, scale)]
        for (mirror_y, mirror_x), repeat in copies
    ]


def crop_numbers(item: Item, seed: int = 0, epoch: int = 0) -> list[float]:
    """Original height and width, top and left of the crop in the scaled picture, target height and width."""
    (width, height), box = item.size, item.box(seed, epoch)
    # the crop fills the target, so the scaled picture is this much larger
    scaled_width, scaled_height = width / (box[2] - box[0]), height / (box[3] - box[1])
    # in a mirrored picture, what was right of the crop is left of it
    left = (1 - box[2]) if item.flip_x else box[0]
    top = (1 - box[3]) if item.flip_y else box[1]
    corner = round(top * scaled_height), round(left * scaled_width)
    return [float(value) for value in (item.record.height, item.record.width, *corner, height, width)]


def bucket_table(items: Iterable[Item]) -> dict[Size, int]:
    """How many items each size has, from the smallest size to the largest."""
    counts = Counter(item.size for item in items)
    return dict(sorted(counts.items(), key=lambda entry: (entry[0][0] * entry[0][1], entry[0])))


def bucket_names(items: Iterable[Item]) -> dict[str, int]:
    """How many items each bucket has: "64x48" or, with frames, "64x48x17"; from the smallest to the largest."""
    counts = Counter((item.size[0] * item.size[1], item.num_frames, item.size) for item in items)
    return {
        "x".join(map(str, (*size, frames) if frames > 1 else size)): count
        for (_, frames, size), count in sorted(counts.items())
    }
