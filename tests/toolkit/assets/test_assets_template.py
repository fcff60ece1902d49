"""Fitting templates: the place and the extent are found, specks do not matter, other shapes overlap less."""

import numpy as np
import pytest

from toolkit.assets.template import Array, best_of, make_templates


def disk(extent: float, x: float = 32, y: float = 32) -> Array:
    rows, columns = np.mgrid[:64, :64] + 0.5
    return (np.hypot(columns - x, rows - y) <= extent / 2).astype(np.float32)


def square(extent: float) -> Array:
    rows, columns = np.mgrid[:64, :64] + 0.5
    return (np.maximum(abs(columns - 32), abs(rows - 32)) <= extent / 2).astype(np.float32)


KINDS = {"square": make_templates(square, [20, 24, 28, 32]), "disk": make_templates(disk, [20, 24, 28, 32])}


def test_place_extent_and_kind_are_found():
    (name, fit), (_, other) = best_of(disk(28, x=35, y=28), KINDS)
    assert (name, fit.extent, fit.center) == ("disk", 28, (35, 28))
    assert fit.overlap == pytest.approx(1, abs=0.01) and other.overlap < 0.9


def test_specks_do_not_change_the_fit():
    mask = disk(24)
    mask[2:5, 2:5] = mask[60:62, 40:44] = 1
    (name, fit), _ = best_of(mask, KINDS)
    assert (name, fit.extent, fit.center) == ("disk", 24, (32, 32))
    assert 0.9 < fit.overlap < 1


def test_far_off_the_middle_nothing_fits_well():
    assert best_of(disk(24, x=14, y=14), KINDS)[0][1].overlap < 0.7
