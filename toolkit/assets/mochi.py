"""Mochi, a round pink cat face: the concept that the embedded model does not know and the quickstart teaches it.

Pink is no color of `toolkit/assets/shapes.py`, and no shape there has ears, eyes or a mouth.
"""

from random import Random

from PIL import Image, ImageDraw

from toolkit.assets.shapes import PALETTE, SCALE, SIDE, blank

PINK = (250, 125, 180)
INK = (25, 25, 25)

RADIUS = 19.0
"""Radius of the face in pixels, before jitter."""

EAR = [(-0.99, -0.1), (-0.76, -1.38), (-0.12, -0.98)]
"""The left ear's corners in radii around the middle of the face; the right one is its mirror image."""

EYE = (0.42, -0.12, 0.19)
"""Distance from the middle line, height, and radius of an eye, in radii of the face."""


def mochi_caption(background: str) -> str:
    """The sentence that describes a picture of mochi; "mochi" is the trigger word."""
    return f"a mochi on a {background} background"


def draw_mochi(background: str, rng: Random) -> Image.Image:
    """Draw mochi on a background of the palette, its place and extent slightly off by what `rng` says."""
    radius = RADIUS * rng.uniform(0.95, 1.05)
    center = (SIDE / 2 + rng.uniform(-2, 2), SIDE / 2 + 3 + rng.uniform(-2, 2))
    canvas = blank(PALETTE[background])
    paint_head(canvas, center, radius)
    paint_features(canvas, center, radius)
    return canvas.reduce(SCALE)


def paint_head(canvas: Image.Image, center: tuple[float, float], radius: float) -> None:
    """The pink silhouette: a disk and two ears."""
    pen = ImageDraw.Draw(canvas)
    pen.ellipse(box(center, radius, (0, 0), 1), fill=PINK)
    for side in (1, -1):
        pen.polygon([place(center, radius, (side * x, y)) for x, y in EAR], fill=PINK)


def paint_features(canvas: Image.Image, center: tuple[float, float], radius: float) -> None:
    """Two eyes and a small smile."""
    pen = ImageDraw.Draw(canvas)
    x, y, size = EYE
    for side in (1, -1):
        pen.ellipse(box(center, radius, (side * x, y), size), fill=INK)
    pen.arc(box(center, radius, (0, 0.25), 0.22), 20, 160, fill=INK, width=round(1.8 * SCALE))


def place(center: tuple[float, float], radius: float, point: tuple[float, float]) -> tuple[float, float]:
    """A point of the face, given in radii, on the enlarged canvas."""
    return (center[0] + point[0] * radius) * SCALE, (center[1] + point[1] * radius) * SCALE


def box(
    center: tuple[float, float], radius: float, point: tuple[float, float], size: float
) -> tuple[float, float, float, float]:
    """The bounding box of a circle on the face, on the enlarged canvas."""
    left, top = place(center, radius, (point[0] - size, point[1] - size))
    right, bottom = place(center, radius, (point[0] + size, point[1] + size))
    return left, top, right, bottom
