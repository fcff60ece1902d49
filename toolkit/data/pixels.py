"""The pixels of one item: opened, cropped to its bucket, mirrored."""

import numpy as np

from toolkit.data.image import WHITE, Color, fit, open_image
from toolkit.data.items import Item


def item_pixels(item: Item, background: Color = WHITE, seed: int = 0, epoch: int = 0) -> np.ndarray:
    """uint8 [H, W, 3]; `seed` and `epoch` matter to random crops only."""
    seen = (item.record.width, item.record.height)
    # a box spans the picture in one direction, so a picture that covers the bucket has enough pixels in the box too
    image = open_image(item.record.path, background, at_least=item.size, expected=seen)
    return fit(image, item.size, item.box(seed, epoch), item.flip_x, item.flip_y)
