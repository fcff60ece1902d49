"""What worker processes are called with: the files of one sample become arrays. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.data.item import Item
from toolkit.data.pictures.image import BrokenImage
from toolkit.data.pictures.pixels import item_mask, item_pair, item_pixels, item_references


@dataclass(frozen=True)
class Wish:
    """What of a sample is wanted, as it is in one epoch."""

    item: Item
    seed: int = 0
    epoch: int = 0
    pixels: bool = True
    """With mask and pair."""
    references: bool = False

    def __str__(self) -> str:
        return str(self.item.record.path)


@dataclass(frozen=True)
class Decoded:
    """What was read: uint8 arrays."""

    pixels: np.ndarray | None = None
    """[(F,) H, W, 3]."""
    mask: np.ndarray | None = None
    """[H, W]."""
    min_value: float = 0.0
    """Weight of what the mask leaves out."""
    pair: np.ndarray | None = None
    """[H, W, 3]: the other picture of a guidance pair."""
    references: tuple[np.ndarray, ...] = ()
    """[H, W, 3], or 4 where transparency matters."""

    @property
    def pictures(self) -> list[Image.Image]:
        """The references as pictures."""
        return [Image.fromarray(array) for array in self.references]


@dataclass(frozen=True)
class Unread:
    """A file that cannot be read."""

    path: Path
    reason: str

    @property
    def error(self) -> BrokenImage:
        """As an error to raise."""
        return BrokenImage(self.path, self.reason)


def decode(wish: Wish) -> Decoded | Unread:
    """Read what is wanted."""
    item, at = wish.item, (wish.seed, wish.epoch)
    try:
        pixels = item_pixels(item, *at) if wish.pixels else None
        mask = item_mask(item, *at) if wish.pixels else None
        pair = item_pair(item, *at) if wish.pixels else None
        min_value = item.treatment.mask.min_value if item.treatment.mask else 0.0
        return Decoded(pixels, mask, min_value, pair, _references(wish, pixels))
    except BrokenImage as error:
        return Unread(error.path, error.reason)


def _references(wish: Wish, pixels: np.ndarray | None) -> tuple[np.ndarray, ...]:
    if not (wish.references and wish.item.references):
        return ()
    if wish.item.references.first_frame and pixels is not None:
        return (pixels if pixels.ndim == 3 else pixels[0],)
    return tuple(np.asarray(picture) for picture in item_references(wish.item, wish.seed, wish.epoch))
