"""The pixels of one item and its references: opened, cropped to its bucket, mirrored."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from toolkit.data.image import WHITE, Color, fit, open_image
from toolkit.data.items import Item
from toolkit.data.references import References
from toolkit.data.scan import Record


def item_pixels(item: Item, background: Color = WHITE, seed: int = 0, epoch: int = 0) -> np.ndarray:
    """uint8 [H, W, 3], or [F, H, W, 3] for a model for video; `seed` and `epoch` matter to what is drawn only."""
    if item.record.clip is not None and item.frames is not None:
        return np.stack(list(_frames(item, item.times(seed), background, seed, epoch)))
    picture = _fitted(item, item.record, background, seed, epoch)
    return picture if item.frames is None else picture[None]


def item_references(item: Item, background: Color = WHITE, seed: int = 0, epoch: int = 0) -> list[Image.Image]:
    """The pictures that condition an item; `background` is that of the target, whose first frame may be one."""
    offered = item.references
    if offered.first_frame:
        return [Image.fromarray(first_frame(item, background, seed, epoch))]
    if offered.like_target:
        pairs = zip(offered.pictures, offered.backgrounds, strict=True)
        return [Image.fromarray(_fitted(item, record, behind, seed, epoch)) for record, behind in pairs]
    return whole_pictures(offered, item.flip_x, item.flip_y)


def whole_pictures(references: References, flip_x: bool = False, flip_y: bool = False) -> list[Image.Image]:
    """Reference pictures at their own size, mirrored as their target is."""
    images = [
        open_image(record.path, behind, expected=(record.width, record.height))
        for record, behind in zip(references.pictures, references.backgrounds, strict=True)
    ]
    if flip_x:
        images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    return [image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) for image in images] if flip_y else images


def first_frame(item: Item, background: Color = WHITE, seed: int = 0, epoch: int = 0) -> np.ndarray:
    """uint8 [H, W, 3]: what `item_pixels` begins with."""
    if item.record.clip is not None and item.frames is not None:
        return next(_frames(item, item.times(seed)[:1], background, seed, epoch))
    return _fitted(item, item.record, background, seed, epoch)


def _fitted(item: Item, record: Record, background: Color | None, seed: int, epoch: int) -> np.ndarray:
    """A picture cropped, scaled and mirrored for the item, whether it is its own or one that belongs to it."""
    # a box spans the picture in one direction, so a picture that covers the bucket has enough pixels in the box too
    image = open_image(record.path, background, at_least=item.size, expected=(record.width, record.height))
    return fit(image, item.size, item.box(seed, epoch), item.flip_x, item.flip_y)


def _frames(item: Item, times: tuple[float, ...], background: Color, seed: int, epoch: int) -> Iterator[np.ndarray]:
    from toolkit.data.video import read_frames

    record, box = item.record, item.box(seed, epoch)
    assert record.clip is not None
    # scaled one by one, because all frames of a large video at full size may not fit in memory
    for image in read_frames(record.path, record.clip, times, background, (record.width, record.height)):
        yield fit(image, item.size, box, item.flip_x, item.flip_y)
