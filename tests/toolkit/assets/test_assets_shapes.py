"""Drawing: the small world is complete, its pictures are reproducible and show what their specs say."""

from random import Random

import numpy as np
import pytest

from toolkit.assets import mochi, shapes
from toolkit.assets.shapes import Spec


def test_world_holds_every_combination_once():
    specs = list(shapes.all_specs())
    assert len(specs) == len(set(specs)) == 6 * 4 * 5 * 2
    assert all(spec.color != spec.background for spec in specs)


def test_caption_names_all_that_is_seen():
    spec = Spec("red", "circle", "blue", "small")
    assert shapes.caption(spec) == "a small red circle on a blue background"
    assert shapes.caption(spec, with_size=False) == "a red circle on a blue background"


def test_same_rng_gives_the_same_picture_and_another_one_moves_it():
    spec = Spec("red", "cross", "white", "large")
    first, again, other = (shapes.draw(spec, Random(seed)) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert first.size == (shapes.SIDE, shapes.SIDE)


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_shape_stays_off_the_border_and_has_its_color_in_the_middle(shape: str):
    for seed in range(20):
        pixels = np.asarray(shapes.draw(Spec("red", shape, "blue", "large"), Random(seed)))
        border = np.concatenate([pixels[:4].reshape(-1, 3), pixels[-4:].reshape(-1, 3), pixels[:, :4].reshape(-1, 3)])
        assert (border == shapes.PALETTE["blue"]).all()
        assert tuple(pixels[34, 32]) == shapes.PALETTE["red"]


def test_edges_are_smooth():
    pixels = np.asarray(shapes.draw(Spec("white", "circle", "black", "small"), Random(0)))[..., 0]
    assert len(np.unique(pixels)) > 5


def test_mochi_is_pink_with_a_dark_eye_on_its_background():
    pixels = np.asarray(mochi.draw_mochi("green", Random(3))).reshape(-1, 3)
    colors = {tuple(pixel) for pixel in pixels.tolist()}
    assert {mochi.PINK, mochi.INK, shapes.PALETTE["green"]} <= colors
    assert mochi.PINK not in shapes.PALETTE.values()
