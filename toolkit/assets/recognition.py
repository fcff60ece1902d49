"""Reads a picture of the small world back without a neural network: what `scripts/bench_concept.py` counts.

Colors are judged by region and shapes by template, on pictures that `toolkit/assets/shapes.py` and
`toolkit/assets/mochi.py` drew or that a model generated, through the soft blur of a VAE.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from toolkit.assets import mochi, shapes
from toolkit.assets.shapes import Spec
from toolkit.assets.template import Array, Fit, Templates, best_of, make_templates

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
    (shape, fit), (_, second) = best_of(outlined(coverage(pixels, ground, figure)), shape_templates())[:2]
    is_plain = fit.overlap > 0.8 and fit.overlap > second.overlap + 0.02 and is_flat(pixels, ground, figure)
    size = "large" if fit.extent > sum(shapes.EXTENTS.values()) / 2 else "small"
    return Finding(nearest_color(figure), shape if is_plain else None, background, size)


def recognize_mochi(image: Image.Image) -> MochiFinding:
    """Look for mochi's head, ears and eyes, and name the background."""
    pixels = pixels_of(image)
    ground = ground_color(pixels)
    background = nearest_color(ground)
    skin = skin_of(pixels, ground)
    if background is None or skin.sum() < 60:
        return MochiFinding(background, False, False, False)
    [(_, fit)] = best_of(skin, head_templates())
    return MochiFinding(background, fit.overlap > 0.75, has_ears(skin, fit), has_eyes(pixels, skin, fit))


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


def outlined(share: Array) -> Array:
    """0 or 1 by half coverage, where a soft edge has its outline, [H, W]."""
    return (share > 0.5).astype(np.float32)


def is_flat(pixels: Array, ground: Array, figure: Array) -> bool:
    """Whether nearly every pixel is the background, the figure, or a blend of both."""
    share = coverage(pixels, ground, figure)[..., None]
    blend = ground + share * (figure - ground)
    strange = np.linalg.norm(pixels - blend, axis=-1) > 50
    return float(strange.mean()) < 0.02


@cache
def shape_templates() -> Mapping[str, Templates]:
    """Every shape at every extent from smaller than small to larger than large."""

    def drawer(shape: str) -> Callable[[float], Array]:
        def draw(extent: float) -> Array:
            canvas = shapes.blank((0, 0, 0))
            shapes.paint(canvas, shape, (shapes.SIDE / 2, shapes.SIDE / 2), extent / 2, (255, 255, 255))
            return mask_of(canvas, full=255)

        return draw

    return {shape: make_templates(drawer(shape), range(16, 51, 2)) for shape in shapes.SHAPES}


@cache
def head_templates() -> Mapping[str, Templates]:
    """Mochi's silhouette without the features; the extent is twice the face's radius."""

    def draw(extent: float) -> Array:
        canvas = shapes.blank((0, 0, 0))
        mochi.paint_head(canvas, (shapes.SIDE / 2, shapes.SIDE / 2), extent / 2)
        return mask_of(canvas, full=mochi.PINK[0])

    return {"mochi": make_templates(draw, range(30, 47, 2))}


def mask_of(canvas: Image.Image, full: int) -> Array:
    """What is painted on a black canvas with a red channel of `full`, 0 to 1."""
    return (np.asarray(canvas.reduce(shapes.SCALE))[..., 0] / full).astype(np.float32)


def skin_of(pixels: Array, ground: Array) -> Array:
    """1 where a pixel is mochi's skin rather than the background, [H, W]."""
    to_pink = np.linalg.norm(pixels - np.asarray(mochi.PINK, np.float32), axis=-1)
    to_ground = np.linalg.norm(pixels - ground, axis=-1)
    return ((to_pink < to_ground) & (to_pink < 100)).astype(np.float32)


def has_ears(skin: Array, fit: Fit) -> bool:
    """Whether there is skin near both tips of the ears and none between them."""
    x, y = (np.mean(mochi.EAR, axis=0) + mochi.EAR[1]) / 2
    ears = [share(skin, fit, (side * x, y), 0.15) for side in (-1, 1)]
    return min(ears) > 0.6 and share(skin, fit, (0, -1.25), 0.15) < 0.3


def has_eyes(pixels: Array, skin: Array, fit: Fit) -> bool:
    """Whether there are two dark spots where the eyes belong, and skin between them."""
    dark = (pixels.max(-1) < 130).astype(np.float32)
    x, y, size = mochi.EYE
    eyes = [share(dark, fit, (side * x, y), size) for side in (-1, 1)]
    return min(eyes) > 0.3 and share(skin, fit, (0, y), 0.12) > 0.5


def share(mask: Array, fit: Fit, point: tuple[float, float], radius: float) -> float:
    """How much of a disk on the face is in a mask; place and radius are in radii of the fitted face."""
    unit = fit.extent / 2
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    distance = np.hypot(columns - fit.center[0] - point[0] * unit, rows - fit.center[1] - point[1] * unit)
    disk = mask[distance <= radius * unit]
    return float(disk.mean()) if disk.size else 0.0
