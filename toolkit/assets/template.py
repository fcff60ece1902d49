"""Which template fits a mask best, and where: several extents are tried at every place near the middle.

Used by `toolkit/assets/recognition.py`. A fit by overlap shrugs off specks and ragged edges, which generated pictures
have, where the mask's bounding box would not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float32]

REACH = 7
"""How many pixels off the middle a shape is looked for."""


@dataclass(frozen=True)
class Templates:
    """One shape drawn in the middle, once per extent."""

    extents: Sequence[float]
    masks: Array
    """[number of extents, H x W]"""


@dataclass(frozen=True)
class Fit:
    """The best place of the best template."""

    overlap: float
    """Intersection over union, 1 for a perfect fit."""
    extent: float
    center: tuple[float, float]
    """Horizontal and vertical, in pixels."""


def make_templates(draw: Callable[[float], Array], extents: Sequence[float]) -> Templates:
    """Templates of one shape; `draw(extent)` gives its mask in the middle of the picture, [H, W]."""
    return Templates(extents, np.stack([draw(extent).ravel() for extent in extents]))


def best_of(mask: Array, kinds: Mapping[str, Templates]) -> list[tuple[str, Fit]]:
    """The best fit of each kind of template, best kind first."""
    views = shifted(mask)
    fits = [(name, best_fit(mask, views, templates)) for name, templates in kinds.items()]
    return sorted(fits, key=lambda named: -named[1].overlap)


def best_fit(mask: Array, views: Array, templates: Templates) -> Fit:
    """Compare every view of a mask with every template."""
    shared = views @ templates.masks.T
    overlaps = shared / (mask.sum() + templates.masks.sum(1) - shared)
    place, which = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
    down, right = divmod(int(place), 2 * REACH + 1)
    center = (mask.shape[1] / 2 + right - REACH, mask.shape[0] / 2 + down - REACH)
    return Fit(float(overlaps[place, which]), templates.extents[int(which)], center)


def shifted(mask: Array) -> Array:
    """The mask as seen from every place near the middle, [number of places, H x W]."""
    return sliding_window_view(np.pad(mask, REACH), mask.shape).reshape(-1, mask.size)
