"""The small world that the embedded model knows: one flat shape of one color on a background of another color.

Needs only Pillow. `scripts/draw_shapes.py` writes data sets of it, `toolkit/assets/recognition.py` reads pictures back.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from random import Random

from PIL import Image, ImageDraw

SIDE = 64
"""Width and height of every picture, in pixels."""

SCALE = 4
"""Pictures are drawn this many times larger and then reduced, which smooths the edges."""

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 165, 70),
    "blue": (45, 80, 220),
    "yellow": (245, 210, 50),
    "white": (245, 245, 245),
    "black": (25, 25, 25),
}

EXTENTS = {"small": 24.0, "large": 42.0}
"""Side of the shape's bounding box in pixels, before jitter."""

SHAPES = ("circle", "square", "triangle", "cross")


@dataclass(frozen=True)
class Spec:
    """What one picture shows."""

    color: str
    shape: str
    background: str
    size: str


def all_specs() -> Iterator[Spec]:
    """Every picture of the world, in a fixed order: 240 of them."""
    for color, shape, background, size in product(PALETTE, SHAPES, PALETTE, EXTENTS):
        if color != background:
            yield Spec(color, shape, background, size)


def caption(spec: Spec, with_size: bool = True) -> str:
    """The sentence that describes a picture: "a small red circle on a blue background"."""
    size = f"{spec.size} " if with_size else ""
    return f"a {size}{spec.color} {spec.shape} on a {spec.background} background"


def draw(spec: Spec, rng: Random) -> Image.Image:
    """Draw a picture, its place and extent slightly off by what `rng` says."""
    half = EXTENTS[spec.size] / 2 * rng.uniform(0.95, 1.05)
    center = (SIDE / 2 + rng.uniform(-2, 2), SIDE / 2 + rng.uniform(-2, 2))
    canvas = blank(PALETTE[spec.background])
    paint(canvas, spec.shape, center, half, PALETTE[spec.color])
    return canvas.reduce(SCALE)


def blank(color: tuple[int, int, int]) -> Image.Image:
    """An enlarged canvas of one color."""
    return Image.new("RGB", (SIDE * SCALE, SIDE * SCALE), color)


def paint(
    canvas: Image.Image, shape: str, center: tuple[float, float], half: float, color: tuple[int, int, int]
) -> None:
    """Put one shape that fills the square `center` +- `half` (in final pixels) on an enlarged canvas."""
    outline = [((center[0] + x * half) * SCALE, (center[1] + y * half) * SCALE) for x, y in OUTLINES[shape]]
    pen = ImageDraw.Draw(canvas)
    if shape == "circle":
        pen.ellipse([*outline[0], *outline[1]], fill=color)
    else:
        pen.polygon(outline, fill=color)


ARM = 0.34
"""Half the width of a cross's arms; half the cross is 1."""

OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": [(-1, -1), (1, 1)],
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1), (1, 1), (-1, 1)],
    "cross": [
        *[(-ARM, -1), (ARM, -1), (ARM, -ARM), (1, -ARM), (1, ARM), (ARM, ARM)],
        *[(ARM, 1), (-ARM, 1), (-ARM, ARM), (-1, ARM), (-1, -ARM), (-ARM, -ARM)],
    ],
}
"""Corners in the square from -1 to 1; y grows downwards; a circle is given by its bounding box."""
