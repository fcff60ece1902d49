"""Reading pictures back: right on what was drawn and blurred, and not to be fooled by look-alikes."""

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from toolkit.assets import mochi, shapes
from toolkit.assets.recognition import Finding, recognize, recognize_mochi

SPECS = list(shapes.all_specs())
BACKGROUNDS = list(shapes.PALETTE)


def soft(image: Image.Image) -> Image.Image:
    """About what a VAE does to a picture."""
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(1)), np.float32)
    noise = np.random.default_rng(0).normal(0, 6, blurred.shape)
    return Image.fromarray(np.clip(blurred + noise, 0, 255).astype(np.uint8))


def unchanged(image: Image.Image) -> Image.Image:
    return image


@pytest.mark.parametrize("change", [unchanged, soft])
def test_every_kind_of_picture_is_recognized(change: Callable[[Image.Image], Image.Image]):
    found = [recognize(change(shapes.draw(spec, Random(f"a/{i}")))).spec == spec for i, spec in enumerate(SPECS)]
    assert sum(found) >= 0.995 * len(SPECS)


@pytest.mark.parametrize("change", [unchanged, soft])
def test_mochi_is_recognized_with_its_background(change: Callable[[Image.Image], Image.Image]):
    for i in range(60):
        found = recognize_mochi(change(mochi.draw_mochi(BACKGROUNDS[i % 6], Random(i))))
        assert found.is_mochi and found.background == BACKGROUNDS[i % 6]


def test_no_picture_of_the_world_is_mochi_and_mochi_is_none_of_them():
    assert not any(recognize_mochi(shapes.draw(spec, Random(f"b/{i}"))).is_mochi for i, spec in enumerate(SPECS))
    assert not any(recognize(mochi.draw_mochi(name, Random(0))).spec for name in BACKGROUNDS)


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_pink_shape_is_not_mochi_and_its_color_is_none_of_the_palette(shape: str):
    canvas = shapes.blank(shapes.PALETTE["blue"])
    shapes.paint(canvas, shape, (32, 32), 21, mochi.PINK)
    picture = canvas.reduce(shapes.SCALE)
    assert not recognize_mochi(picture).is_mochi
    assert recognize(picture).color == "pink"


def test_mochi_needs_its_eyes_and_its_ears():
    blind = shapes.blank(shapes.PALETTE["white"])
    mochi.paint_head(blind, (32, 35), mochi.RADIUS)
    found = recognize_mochi(blind.reduce(shapes.SCALE))
    assert (found.head, found.ears, found.eyes) == (True, True, False)

    earless = shapes.blank(shapes.PALETTE["white"])
    ImageDraw.Draw(earless).ellipse(mochi.box((32, 35), mochi.RADIUS, (0, 0), 1), fill=mochi.PINK)
    mochi.paint_features(earless, (32, 35), mochi.RADIUS)
    assert not recognize_mochi(earless.reduce(shapes.SCALE)).ears


def test_empty_picture_shows_only_a_background():
    empty = Image.new("RGB", (64, 64), shapes.PALETTE["yellow"])
    assert recognize(empty) == Finding(None, None, "yellow", None)
    assert not recognize_mochi(empty).is_mochi


def test_unclear_pictures_have_no_shape():
    two = shapes.blank(shapes.PALETTE["black"])
    shapes.paint(two, "circle", (20, 20), 10, shapes.PALETTE["red"])
    shapes.paint(two, "square", (44, 44), 10, shapes.PALETTE["red"])
    assert recognize(two.reduce(shapes.SCALE)).shape is None

    two_colors = shapes.blank(shapes.PALETTE["black"])
    shapes.paint(two_colors, "circle", (32, 32), 20, shapes.PALETTE["red"])
    shapes.paint(two_colors, "square", (32, 40), 8, shapes.PALETTE["green"])
    assert recognize(two_colors.reduce(shapes.SCALE)).shape is None


def test_noise_is_no_picture():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert recognize(Image.fromarray(noise)).spec is None
    assert not recognize_mochi(Image.fromarray(noise)).is_mochi


def test_color_between_two_names_has_no_name():
    canvas = shapes.blank((135, 120, 145))
    shapes.paint(canvas, "circle", (32, 32), 20, shapes.PALETTE["white"])
    assert recognize(canvas.reduce(shapes.SCALE)).background is None
