"""Reads a picture of the small world back without a neural network: what `scripts/bench_concept.py` counts.

Colors are judged by region and shapes by template, on pictures that `toolkit/assets/shapes.py` and
`toolkit/assets/mochi.py` drew or that a model generated, through the soft blur of a VAE.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toolkit.assets import mochi, shapes
from toolkit.assets.shapes import Spec

Array = NDArray[np.float32]

TEMPLATE_SIDE = 32
BORDER = 4
"""Pixels along the edge that no shape reaches."""

COLORS = {**shapes.PALETTE, "pink": mochi.PINK}
"""The palette, and pink so that it is not taken for its nearest neighbor in the palette."""


@dataclass(frozen=True)
class Finding:
    """What a picture shows; an attribute that is not plain to see is None."""

    color: str | None
    shape: str | None
    background: str | None
    size: str | None

    @property
    def spec(self) -> Spec | None:
        """The picture's description, if every attribute is plain to see and of the small world."""
        if self.color not in shapes.PALETTE or self.background not in shapes.PALETTE:
            return None
        if self.shape is None or self.size is None:
            return None
        return Spec(self.color, self.shape, self.background, self.size)


@dataclass(frozen=True)
class MochiFinding:
    """Which parts of mochi a picture shows."""

    background: str | None
    head: bool
    ears: bool
    eyes: bool

    @property
    def is_mochi(self) -> bool:
        """Whether all of mochi is there."""
        return self.head and self.ears and self.eyes


def recognize(image: Image.Image) -> Finding:
    """Name the color, shape, background and size of a picture."""
    pixels = pixels_of(image)
    ground = ground_color(pixels)
    background = nearest_color(ground)
    figure = figure_color(pixels, ground)
    if figure is None:
        return Finding(None, None, background, None)
    color = nearest_color(figure)
    cover = coverage(pixels, ground, figure)
    bounds = bounding_box(cover)
    if bounds is None:
        return Finding(color, None, background, None)
    left, top, right, bottom = bounds
    size = "large" if (right - left + bottom - top) / 2 > sum(shapes.EXTENTS.values()) / 2 else "small"
    shape = best_template(cover, bounds) if is_flat(pixels, ground, figure) else None
    return Finding(color, shape, background, size)


def recognize_mochi(image: Image.Image) -> MochiFinding:
    """Look for mochi's head, ears and eyes, and name the background."""
    pixels = pixels_of(image)
    ground = ground_color(pixels)
    background = nearest_color(ground)
    cover = is_pinkish(pixels, ground)
    bounds = bounding_box(cover)
    if background is None or bounds is None:
        return MochiFinding(background, False, False, False)
    skin = crop(cover, bounds)
    return MochiFinding(background, has_head(skin, bounds), has_ears(skin), has_eyes(pixels, skin, bounds))


def pixels_of(image: Image.Image) -> Array:
    """The picture as numbers from 0 to 255, [H, W, C]."""
    small = image.convert("RGB")
    if small.size != (shapes.SIDE, shapes.SIDE):
        small = small.resize((shapes.SIDE, shapes.SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def ground_color(pixels: Array) -> Array:
    """The color of the region that no shape reaches."""
    inside = slice(BORDER, -BORDER)
    edge = np.ones(pixels.shape[:2], bool)
    edge[inside, inside] = False
    return np.median(pixels[edge], axis=0).astype(np.float32)


def figure_color(pixels: Array, ground: Array) -> Array | None:
    """The color of what is not background, or None for an empty picture."""
    differs = np.linalg.norm(pixels - ground, axis=-1) > 60
    if differs.sum() < 60:
        return None
    return np.median(pixels[differs], axis=0).astype(np.float32)


def nearest_color(color: Array) -> str | None:
    """The name of a color, or None between two names: no two lie closer than twice this limit."""
    distances = {name: float(np.linalg.norm(color - np.asarray(rgb))) for name, rgb in COLORS.items()}
    name = min(distances, key=lambda name: distances[name])
    return name if distances[name] < 65 else None


def coverage(pixels: Array, ground: Array, figure: Array) -> Array:
    """How much of each pixel belongs to the figure, 0 to 1, [H, W]."""
    axis = figure - ground
    share = (pixels - ground) @ axis / (axis @ axis)
    return np.clip(share, 0, 1).astype(np.float32)


def is_flat(pixels: Array, ground: Array, figure: Array) -> bool:
    """Whether nearly every pixel is the background, the figure, or a blend of both."""
    share = coverage(pixels, ground, figure)[..., None]
    blend = ground + share * (figure - ground)
    strange = np.linalg.norm(pixels - blend, axis=-1) > 50
    return float(strange.mean()) < 0.02


def bounding_box(cover: Array) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of what is covered; single pixels and tiny specks do not count."""
    solid = cover > 0.5
    columns, rows = np.flatnonzero(solid.sum(0) > 1), np.flatnonzero(solid.sum(1) > 1)
    if len(columns) < 10 or len(rows) < 10:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def crop(cover: Array, bounds: tuple[int, int, int, int]) -> Array:
    """The part inside `bounds`, brought to the size of the templates."""
    side = (TEMPLATE_SIDE, TEMPLATE_SIDE)
    return np.asarray(Image.fromarray(cover).resize(side, Image.Resampling.BILINEAR, box=bounds), np.float32)


def best_template(cover: Array, bounds: tuple[int, int, int, int]) -> str | None:
    """The shape whose template overlaps best, or None where it is a close call or the outline is stretched."""
    width, height = bounds[2] - bounds[0], bounds[3] - bounds[1]
    if max(width, height) > 1.3 * min(width, height):
        return None
    cropped = crop(cover, bounds)
    scores = {name: overlap(cropped, template) for name, template in templates().items()}
    second, best = sorted(scores, key=lambda name: scores[name])[-2:]
    return best if scores[best] > 0.75 and scores[best] > scores[second] + 0.08 else None


def overlap(one: Array, other: Array) -> float:
    """Intersection over union of two soft masks."""
    return float(np.minimum(one, other).sum() / np.maximum(one, other).sum())


@cache
def templates() -> Mapping[str, Array]:
    """Each shape drawn alone and cropped, by name."""
    masks = {}
    for shape in shapes.SHAPES:
        canvas = shapes.blank((0, 0, 0))
        shapes.paint(canvas, shape, (shapes.SIDE / 2, shapes.SIDE / 2), 20, (255, 255, 255))
        masks[shape] = cropped_mask(canvas, full=255)
    return masks


@cache
def head_template() -> Array:
    """Mochi's silhouette without the features, cropped."""
    canvas = shapes.blank((0, 0, 0))
    mochi.paint_head(canvas, (shapes.SIDE / 2, shapes.SIDE / 2), mochi.RADIUS)
    return cropped_mask(canvas, full=mochi.PINK[0])


def cropped_mask(canvas: Image.Image, full: int) -> Array:
    """What is painted on a black canvas with a red channel of `full`, as a template."""
    cover = (np.asarray(canvas.reduce(shapes.SCALE))[..., 0] / full).astype(np.float32)
    bounds = bounding_box(cover)
    assert bounds is not None
    return crop(cover, bounds)


def is_pinkish(pixels: Array, ground: Array) -> Array:
    """1 where a pixel is mochi's skin rather than the background, [H, W]."""
    to_pink = np.linalg.norm(pixels - np.asarray(mochi.PINK, np.float32), axis=-1)
    to_ground = np.linalg.norm(pixels - ground, axis=-1)
    return ((to_pink < to_ground) & (to_pink < 100)).astype(np.float32)


def has_head(skin: Array, bounds: tuple[int, int, int, int]) -> bool:
    """Whether the silhouette is mochi's, and neither tiny nor stretched."""
    width, height = bounds[2] - bounds[0], bounds[3] - bounds[1]
    return width >= 20 and 0.95 < height / width < 1.45 and overlap(skin, head_template()) > 0.75


def has_ears(skin: Array) -> bool:
    """Whether the top of the silhouette is two tips with a gap between them."""
    tips = skin[1:5]
    third = TEMPLATE_SIDE // 3
    left, gap, right = tips[:, :third], tips[:, third + 2 : -third - 2], tips[:, -third:]
    return bool(min(left.mean(), right.mean()) > max(0.3, gap.mean() + 0.2))


def has_eyes(pixels: Array, skin: Array, bounds: tuple[int, int, int, int]) -> bool:
    """Whether there are two dark spots where the eyes belong, and skin between and below them."""
    dark = crop((pixels.max(-1) < 130).astype(np.float32), bounds)
    x, y, size = mochi.EYE
    top = -min(corner[1] for corner in mochi.EAR)
    row = round((y + top) / (1 + top) * TEMPLATE_SIDE)
    half = round(size / 2 * TEMPLATE_SIDE / 2 * 1.5)
    rows = slice(row - half, row + half + 1)

    def column(offset: float) -> slice:
        middle = round((1 + offset) / 2 * TEMPLATE_SIDE)
        return slice(middle - half, middle + half + 1)

    eyes = [float(dark[rows, column(side * x)].mean()) for side in (-1, 1)]
    return min(eyes) > 0.25 and float(skin[rows, column(0)].mean()) > 0.5
