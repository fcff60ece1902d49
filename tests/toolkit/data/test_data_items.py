"""Items: how many a record becomes, what they are called, and the pixels each one shows."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data.caption import CaptionRule
from toolkit.data.image import fit, open_image
from toolkit.data.items import bucket_table, crop_numbers, expand
from toolkit.data.pixels import item_pixels
from toolkit.data.scan import Record, scan

RECORDS = [Record(Path("a.png"), "a.png", 640, 480, "one"), Record(Path("b.png"), "b.png", 512, 512)]


def test_one_item_per_resolution_mirroring_and_repeat() -> None:
    items = expand(RECORDS, [256, 512], 16, repeats=3, flip_x=True, flip_y=True)
    assert len(items) == 2 * 2 * 4 * 3
    assert len({item.id for item in items}) == len(items)
    assert len({(item.flip_x, item.flip_y) for item in items}) == 4
    assert len(expand(RECORDS, [256], 16, flip_x=True)) == len(expand(RECORDS, [256], 16, flip_y=True)) == 4


def test_ids_do_not_depend_on_other_records() -> None:
    alone = expand(RECORDS[1:], [256], 16, dataset=2)
    assert [item.id for item in alone] == ["2:b.png@256#0"]
    assert alone[0].id in {item.id for item in expand(RECORDS[::-1], [512, 256], 16, dataset=2, flip_x=True)}


def test_sizes_and_bucket_table() -> None:
    items = expand(RECORDS, [512, 256], 16)
    assert bucket_table(items) == {(256, 256): 1, (288, 224): 1, (512, 512): 1, (576, 432): 1}
    assert list(bucket_table(items)) == sorted(bucket_table(items), key=lambda size: size[0] * size[1])
    assert sum(bucket_table(items).values()) == 4
    assert {item.size for item in expand(RECORDS, [256], 16, square_crop=True)} == {(256, 256)}


def test_random_crop_is_drawn_per_sample_and_epoch() -> None:
    wide = [Record(Path(name), name, 4000, 500) for name in ("a", "b")]
    first, second = expand(wide, [256], 16, random_crop=True, square_crop=True)
    boxes = [first.box(0, 0), first.box(0, 1), first.box(1, 0), second.box(0, 0)]
    assert len(set(boxes)) == 4
    assert first.box(0, 0) == first.box(0, 0)
    assert all(left >= 0 and right <= 1 and right - left == pytest.approx(0.125) for left, _, right, _ in boxes)
    centered = expand(wide, [256], 16, square_crop=True)[0]
    assert centered.box(0, 0) == centered.box(5, 9) == (0.4375, 0, 0.5625, 1)


def test_text_is_drawn_per_sample_and_epoch() -> None:
    record = Record(Path("a"), "a", 64, 64, "a, b, c, d, e")
    item, repeat = expand([record], [64], 16, repeats=2, caption=CaptionRule(shuffle=True))
    assert item.text(0, 0) == item.text(0, 0)
    assert len({item.text(0, epoch) for epoch in range(9)} | {repeat.text(0, 0)}) > 5


def test_pixels_of_an_item(tmp_path: Path) -> None:
    # left half red, right half blue, with a green bar on top that a square crop of the middle keeps
    array = np.zeros((100, 300, 3), dtype=np.uint8)
    array[:, :150, 0] = array[:, 150:, 2] = 255
    array[:50, :, 1] = 255
    Image.fromarray(array).save(tmp_path / "a.png")
    records = scan(tmp_path).records
    plain, mirrored = expand(records, [64], 16, square_crop=True, flip_x=True)
    pixels = item_pixels(plain)
    assert pixels.shape == (64, 64, 3)
    assert pixels[5, 5].tolist() == [255, 255, 0] and pixels[-5, -5].tolist() == [0, 0, 255]
    assert np.array_equal(item_pixels(mirrored), pixels[:, ::-1])
    turned = next(item for item in expand(records, [64], 16, flip_y=True) if item.flip_y)
    assert item_pixels(turned)[-5, 5].tolist() == [255, 255, 0]


def test_reduced_decoding_of_a_crop_keeps_the_detail(tmp_path: Path) -> None:
    ramp = (np.arange(2400)[None, :] + 7 * np.arange(1200)[:, None]) // 5 % 2 * 200
    path = tmp_path / "a.jpg"
    Image.fromarray(ramp.astype(np.uint8)).save(path, quality=95)
    (item,) = expand(scan(tmp_path).records, [256], 16, square_crop=True)
    assert open_image(path, at_least=item.size).width == 1200
    whole = fit(open_image(path), item.size, item.box()).astype(int)
    assert np.abs(item_pixels(item).astype(int) - whole).mean() < 2


def test_crop_numbers_are_pixels_of_the_scaled_picture(tmp_path: Path) -> None:
    Image.new("RGB", (300, 100)).save(tmp_path / "a.png")
    records = scan(tmp_path).records
    whole = expand(records, [64], 16)[0]
    assert crop_numbers(whole) == [100, 300, 0, (whole.size[1] * 3 - whole.size[0]) / 2, *whole.size[::-1]]
    middle = expand(records, [64], 16, square_crop=True)[0]
    # scaled to 192 x 64, of which 64 x 64 in the middle
    assert crop_numbers(middle) == [100, 300, 0, 64, 64, 64]
    # of a wider picture something is cropped away at random; mirrored, it is what is left of it on the other side
    Image.new("RGB", (370, 100)).save(tmp_path / "a.png")
    plain, mirrored = expand(scan(tmp_path).records, [64], 16, random_crop=True, flip_x=True)
    for item in (plain, mirrored):
        left, _, right, _ = item.box(7, 1)
        assert right - left < 0.95 and abs(left - (1 - right)) > 0.01
        expected = (1 - right if item.flip_x else left) * item.size[1] * 3.7
        assert crop_numbers(item, 7, 1)[2:4] == [0, round(expected)]
