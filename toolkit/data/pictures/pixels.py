"""The pixels of one item, and of what belongs to it: opened, cropped to its bucket, mirrored, augmented."""

from collections.abc import Iterator
from math import ceil

import numpy as np
from PIL import Image

from toolkit.data.bucket import Box, Size
from toolkit.data.item import Item
from toolkit.data.pictures.augment import Augment
from toolkit.data.pictures.image import Color, fit, open_image
from toolkit.data.pictures.masks import to_mask
from toolkit.data.pictures.references import References
from toolkit.data.records import Record

BLACK: Color = (0, 0, 0)


def item_pixels(item: Item, seed: int = 0, epoch: int = 0) -> np.ndarray:
    """uint8 [H, W, 3], or [F, H, W, 3] for a model for video; `seed` and `epoch` matter to what is random only."""
    if item.record.clip is not None and item.treatment.frames is not None:
        return np.stack(list(_frames(item, item.times(seed), seed, epoch)))
    picture = _changed(item, _picture(item, seed, epoch), seed, epoch)
    return picture if item.treatment.frames is None else picture[None]


def item_mask(item: Item, seed: int = 0, epoch: int = 0) -> np.ndarray | None:
    """uint8 [H, W], 255 where the loss counts fully: cropped, mirrored and moved as the picture is; None without mask.

    One mask holds for all frames of a video. `MaskRule.min_value` is left to whoever makes weights of it.
    """
    rule = item.treatment.mask
    if rule is None:
        return None
    record = item.record if item.mask is None else item.mask
    box = item.box(seed, epoch)
    mask = fit(to_mask(_opened(record, item, None if rule.alpha else BLACK, box), rule), item.size, box, *_flips(item))
    augment = item.treatment.augment
    return augment.move(mask, seed, epoch, item.id) if augment else mask


def item_pair(item: Item, seed: int = 0, epoch: int = 0) -> np.ndarray | None:
    """uint8 [H, W, 3]: the picture of `unconditional_path`, treated in every way as the item's own; None without."""
    if item.pair is None:
        return None
    pixels = _fitted(item, item.pair, item.treatment.background, seed, epoch)
    augment = item.treatment.augment
    return _changed(item, pixels, seed, epoch) if augment and augment.replay else pixels


def item_clip_image(item: Item, seed: int = 0, epoch: int = 0) -> Image.Image | None:
    """The picture of `clip_image_path` at its own size, mirrored as the item is, with augmentations of its own."""
    if item.clip_image is None:
        return None
    record, augment = item.clip_image, item.treatment.clip_augment
    image = open_image(record.path, item.treatment.background, expected=_size(record), part=record.part)
    image = _mirrored(image, *_flips(item))
    if augment is None:
        return image
    return Image.fromarray(augment.change(np.asarray(image), seed, epoch, f"{item.id} clip image"))


def item_references(item: Item, seed: int = 0, epoch: int = 0) -> list[Image.Image]:
    """The pictures that condition an item."""
    offered = item.references
    if offered.first_frame:
        return [Image.fromarray(first_frame(item, seed, epoch))]
    if not offered.like_target:
        return whole_pictures(offered, *_flips(item))
    augment = item.treatment.augment
    moving = augment if augment and augment.replay else None
    pairs = zip(offered.pictures, offered.backgrounds, strict=True)
    return [Image.fromarray(_followed(item, record, behind, moving, seed, epoch)) for record, behind in pairs]


def whole_pictures(references: References, flip_x: bool = False, flip_y: bool = False) -> list[Image.Image]:
    """Reference pictures at their own size, mirrored as their target is."""
    return [
        _mirrored(open_image(record.path, behind, expected=_size(record), part=record.part), flip_x, flip_y)
        for record, behind in zip(references.pictures, references.backgrounds, strict=True)
    ]


def first_frame(item: Item, seed: int = 0, epoch: int = 0) -> np.ndarray:
    """uint8 [H, W, 3]: what `item_pixels` begins with."""
    if item.record.clip is not None and item.treatment.frames is not None:
        return next(_frames(item, item.times(seed)[:1], seed, epoch))
    return _changed(item, _picture(item, seed, epoch), seed, epoch)


def _picture(item: Item, seed: int, epoch: int) -> np.ndarray:
    """The item's own picture before augmentation."""
    rule = item.treatment.mask
    if rule is None or not rule.alpha:
        return _fitted(item, item.record, item.treatment.background, seed, epoch)
    # what lies under transparent parts is seen; left in, the alpha channel would weigh colors in scaling
    box = item.box(seed, epoch)
    return fit(_opened(item.record, item, None, box).convert("RGB"), item.size, box, *_flips(item))


def _changed(item: Item, pixels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    augment = item.treatment.augment
    return augment.change(pixels, seed, epoch, item.id) if augment else np.ascontiguousarray(pixels)


def _followed(
    item: Item, record: Record, behind: Color | None, moving: Augment | None, seed: int, epoch: int
) -> np.ndarray:
    pixels = _fitted(item, record, behind, seed, epoch)
    return moving.move(pixels, seed, epoch, item.id) if moving else pixels


def _fitted(item: Item, record: Record, background: Color | None, seed: int, epoch: int) -> np.ndarray:
    """A picture cropped, scaled and mirrored for the item, whether it is its own or one that belongs to it."""
    box = item.box(seed, epoch)
    return fit(_opened(record, item, background, box), item.size, box, *_flips(item))


def _opened(record: Record, item: Item, background: Color | None, box: Box) -> Image.Image:
    """With enough pixels that its part `box` fills the item's size."""
    needed = ceil(item.size[0] / (box[2] - box[0])), ceil(item.size[1] / (box[3] - box[1]))
    return open_image(record.path, background, at_least=needed, expected=_size(record), part=record.part)


def _frames(item: Item, times: tuple[float, ...], seed: int, epoch: int) -> Iterator[np.ndarray]:
    from toolkit.data.pictures.video import read_frames

    record, box, background = item.record, item.box(seed, epoch), item.treatment.background
    assert record.clip is not None
    # scaled one by one, because all frames of a large video at full size may not fit in memory
    for image in read_frames(record.path, record.clip, times, background, _size(record), record.part):
        yield _changed(item, fit(image, item.size, box, *_flips(item)), seed, epoch)


def _mirrored(image: Image.Image, flip_x: bool, flip_y: bool) -> Image.Image:
    if flip_x:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if flip_y else image


def _flips(item: Item) -> tuple[bool, bool]:
    return item.flip_x, item.flip_y


def _size(record: Record) -> Size:
    return record.width, record.height
