"""Bucket sizes against those recorded from ai-toolkit, and the rules that hold for any picture."""

import random

import pytest

from toolkit.data.bucket import bucket_for, crop_for, fixed_for, largest_zoom, lost, square_for

GRIDS = ((512, 16), (768, 32), (1024, 16), (1024, 32))
# what ai-toolkit gives; where it crops away clearly more than it has to, "ours != theirs"
TABLE = {
    (1024, 1024): ("512x512", "768x768", "1024x1024", "1024x1024"),
    (1920, 1080): ("672x384", "1024x576", "1360x768", "1344x768"),
    (1080, 1920): ("384x672", "576x1024", "768x1360", "768x1344"),
    (3000, 2000): ("624x416", "928x608 != 960x608", "1248x832", "1248x832"),
    (4000, 1000): ("1024x256", "1536x384", "2048x512", "2048x512"),
    (800, 600): ("576x432 != 576x448", "800x608", "800x592", "800x608"),
    (300, 300): ("304x304", "288x288 != 288x320", "304x304", "288x288 != 288x320"),
    (513, 700): ("432x592", "512x704", "512x704", "512x704"),
    (20, 1000): ("16x1008", "32x992", "16x1008", "32x992"),
    (6000, 4000): ("624x416", "928x608 != 960x608", "1248x832", "1248x832"),
}
CELLS = [(image, *grid, cell) for image, row in TABLE.items() for grid, cell in zip(GRIDS, row, strict=True)]


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


@pytest.mark.parametrize(("image", "resolution", "divisor", "cell"), CELLS)
def test_recorded_sizes(image: tuple[int, int], resolution: int, divisor: int, cell: str) -> None:
    ours, _, theirs = cell.partition(" != ")
    assert bucket_for(*image, resolution, divisor) == _size(ours)
    if theirs:
        # a differing cell has to be worth it
        assert lost(*image, _size(ours)) < 0.5 * lost(*image, _size(theirs))


def test_most_cells_agree() -> None:
    assert sum("!=" in cell for *_, cell in CELLS) == 5


def test_rules_for_any_picture() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        width, height = rng.randint(1, 5000), rng.randint(1, 5000)
        resolution, divisor = rng.choice((256, 512, 768, 1000, 1024)), rng.choice((8, 16, 32, 64))
        size = bucket_for(width, height, resolution, divisor)
        assert size[0] % divisor == size[1] % divisor == 0 and min(size) > 0
        # a side of one divisor is the least there is, even if the other is then too long for the area
        assert size[0] * size[1] <= resolution**2 or min(size) == divisor
        assert size[0] < width + divisor and size[1] < height + divisor
        assert bucket_for(height, width, resolution, divisor) == size[::-1]


@pytest.mark.parametrize("side", [40, 100, 300, 777, 1001, 2040, 4999])
@pytest.mark.parametrize("divisor", [16, 32, 64])
def test_square_stays_square(side: int, divisor: int) -> None:
    width, height = bucket_for(side, side, 2048, divisor)
    assert width == height


def test_scale_shrinks_the_picture_first() -> None:
    assert bucket_for(1000, 1000, 1024, 8, scale=0.5) == bucket_for(500, 500, 1024, 8)


def test_square_crop() -> None:
    assert square_for(1920, 1080, 512, 16) == (512, 512)
    assert square_for(300, 2000, 512, 16) == (304, 304)


def test_crop_covers_and_centers() -> None:
    assert crop_for(200, 100, (64, 64)) == (0.25, 0, 0.75, 1)
    assert crop_for(100, 200, (64, 64)) == (0, 0.25, 1, 0.75)
    assert crop_for(300, 300, (288, 288)) == (0, 0, 1, 1)


def test_crop_anchor_moves_the_box_to_the_edges() -> None:
    assert crop_for(200, 100, (64, 64), (0, 0)) == (0, 0, 0.5, 1)
    assert crop_for(200, 100, (64, 64), (1, 1)) == (0.5, 0, 1, 1)


def test_without_buckets_the_size_is_the_resolution_rounded_down() -> None:
    assert fixed_for(512, 16) == (512, 512)
    assert fixed_for(500, 32) == (480, 480)
    assert fixed_for(20, 32) == (32, 32)


def test_a_zoomed_crop_has_its_share_of_the_picture_and_its_aspect() -> None:
    assert largest_zoom(320, 320, (32, 32)) == 10
    assert largest_zoom(320, 320, (32, 32), scale=0.5) == 5
    assert largest_zoom(20, 20, (32, 32)) == 1
    # limited by the side that has fewer pixels to spare
    assert largest_zoom(640, 320, (32, 32)) == 10
    for anchor, left in ((0.0, 0.0), (0.5, 0.375), (1.0, 0.75)):
        box = crop_for(640, 320, (32, 32), (anchor, anchor), zoom=2.0)
        assert box == pytest.approx((left, anchor / 2, left + 0.25, anchor / 2 + 0.5))
