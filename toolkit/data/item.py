"""One sample of an epoch: a picture of a data set at a size, mirrored or not, and what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.data.bucket import Box, Size, crop_for, largest_zoom
from toolkit.data.caption import caption_for, raw_caption
from toolkit.data.pictures.references import NONE, References
from toolkit.data.records import Record
from toolkit.data.rng import stream
from toolkit.data.treatment import PLAIN, Treatment


@dataclass(frozen=True)
class Item:
    """One sample of an epoch."""

    record: Record
    size: Size
    """Width and height that it is trained at."""
    resolution: int
    treatment: Treatment = PLAIN
    flip_x: bool = False
    flip_y: bool = False
    repeat: int = 0
    references: References = NONE
    mask: Record | None = None
    """The picture whose brightness weighs the loss; also with `Treatment.mask`, the alpha channel, if None."""
    pair: Record | None = None
    """The picture of `unconditional_path`."""
    clip_image: Record | None = None
    """The picture of `clip_image_path`."""

    @property
    def id(self) -> str:
        """Stable name of the sample; all its randomness hangs on it."""
        return item_id(self.treatment.dataset, self.record.name, self.resolution, self.flip_x, self.flip_y, self.repeat)

    @property
    def num_frames(self) -> int:
        """F of its pixels; 0 if they are a picture [H, W]."""
        frames = self.treatment.frames
        return frames.count(self.record.clip) if frames else 0

    def times(self, seed: int = 0) -> tuple[float, ...]:
        """The moments of its frames in a video; the same in every epoch."""
        frames = self.treatment.frames
        if frames is None or self.record.clip is None:
            return ()
        return frames.times(self.record.clip, stream(seed, 0, self.id, "frames").random())

    @property
    def fps(self) -> float:
        """Frames per second among those that are trained."""
        frames = self.treatment.frames
        return frames.rate(self.record.clip) if frames else 0.0

    def box(self, seed: int = 0, epoch: int = 0) -> Box:
        """The part of the picture that is seen in this epoch."""
        width, height, rule = self.record.width, self.record.height, self.treatment
        if not (rule.random_crop or rule.random_scale):
            return crop_for(width, height, self.size)
        rng = stream(seed, epoch, self.id, "crop")
        anchor, zoom = (rng.random(), rng.random()), 1.0
        if rule.random_scale:
            zoom = rng.uniform(1.0, largest_zoom(width, height, self.size, rule.scale))
        return crop_for(width, height, self.size, anchor, zoom)

    def text(self, seed: int, epoch: int) -> str:
        """The caption that is trained on in this epoch."""
        rule = self.treatment.caption
        return caption_for(self.raw_caption, rule, stream(seed, epoch, self.id, "caption"))

    @property
    def raw_caption(self) -> str | None:
        """The caption as it was found."""
        return raw_caption(self.record.caption, self.record.short_caption, self.treatment.caption)


def item_id(dataset: int, name: str, resolution: int, flip_x: bool, flip_y: bool, repeat: int) -> str:
    """The name of a sample: `0:sub/cat.jpg@512x#0`."""
    return f"{dataset}:{name}@{resolution}{'y' * flip_y}{'x' * flip_x}#{repeat}"


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
