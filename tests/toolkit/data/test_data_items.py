"""Items: how many a record becomes, what they are called, the pixels each one shows, and all of them as arrays."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data.bucket import bucket_for, square_for
from toolkit.data.caption import CaptionRule
from toolkit.data.item import crop_numbers
from toolkit.data.items import DatasetItems, Items, expand
from toolkit.data.pictures.image import fit, open_image
from toolkit.data.pictures.pixels import item_pixels
from toolkit.data.records import ListedRecords, Record
from toolkit.data.scanning.scan import scan
from toolkit.data.treatment import Treatment

RECORDS = ListedRecords([Record(Path("a.png"), "a.png", 640, 480, "one"), Record(Path("b.png"), "b.png", 512, 512)])


def bucket(width: int, height: int, resolution: int) -> tuple[int, int]:
    return bucket_for(width, height, resolution, 16)


def square(width: int, height: int, resolution: int) -> tuple[int, int]:
    return square_for(width, height, resolution, 16)


def test_one_item_per_resolution_mirroring_and_repeat() -> None:
    items = DatasetItems(RECORDS, [256, 512], bucket, repeats=3, flip_x=True, flip_y=True)
    assert len(items) == 2 * 2 * 4 * 3 == len(list(items))
    assert len({item.id for item in items}) == len(items)
    assert len({(item.flip_x, item.flip_y) for item in items}) == 4
    mirrored = [DatasetItems(RECORDS, [256], bucket, flip_x=True), DatasetItems(RECORDS, [256], bucket, flip_y=True)]
    assert list(map(len, mirrored)) == [4, 4]
    with pytest.raises(IndexError):
        items[len(items)]


def test_ids_do_not_depend_on_other_records() -> None:
    alone = DatasetItems(RECORDS.chosen(np.array([1])), [256], bucket, Treatment(dataset=2))
    assert [item.id for item in alone] == ["2:b.png@256#0"]
    turned = RECORDS.chosen(np.array([1, 0]))
    assert alone[0].id in {
        item.id for item in DatasetItems(turned, [512, 256], bucket, Treatment(dataset=2), flip_x=True)
    }


def test_sizes_and_bucket_table() -> None:
    items = Items([expand(RECORDS, [512, 256], 16)])
    assert items.buckets == {"256x256": 1, "288x224": 1, "512x512": 1, "576x432": 1}
    # from the smallest to the largest
    assert list(items.buckets) == ["288x224", "256x256", "576x432", "512x512"]
    assert items.describe() == [
        "4 training samples in 4 buckets (288x224: 1, 256x256: 1, 576x432: 1, 512x512: 1)",
    ]
    assert {item.size for item in DatasetItems(RECORDS, [256], square)} == {(256, 256)}


def test_arrays_say_what_the_items_say() -> None:
    reg = Treatment(dataset=1, batch_size=3, is_reg=True)
    items = Items(
        [
            DatasetItems(RECORDS, [512, 256], bucket, Treatment(batch_size=2), repeats=2, flip_x=True),
            DatasetItems(RECORDS, [256], square, reg, flip_y=True),
        ]
    )
    some = items.without([0, 9, 17]).without(np.array([3]))
    assert len(some) == 16
    for data in (items, some):
        datasets, rows = data.places()
        for index, item in enumerate(data):
            assert data.sizes()[index].tolist() == [*item.size, 0]
            assert data.batch_sizes()[index] == item.treatment.batch_size
            assert data.is_reg()[index] == item.treatment.is_reg
            assert data.datasets[datasets[index]].records[int(rows[index])] is item.record
        keys = data.keys()
        assert len(set(keys.tolist())) == len({item.size for item in data})
        assert len({(int(key), item.size) for key, item in zip(keys, data, strict=True)}) == len(set(keys.tolist()))
    assert items[-1] == items[19] and items[2:4] == [items[2], items[3]]


def test_views_are_what_items_share_beside_their_pictures() -> None:
    alike = ListedRecords([Record(Path(name), name, 640, 480) for name in "abc"] + list(RECORDS))
    items = Items(
        [
            DatasetItems(alike, [512, 256], bucket, repeats=2, flip_x=True, flip_y=True),
            DatasetItems(alike, [256], bucket, Treatment(dataset=1, background=(0, 0, 0))),
            DatasetItems(alike, [256], bucket, Treatment(dataset=2, random_crop=True)),
        ]
    ).without([0, 1])
    views, examples = items.views()
    assert views.dtype == np.int32 and len(views) == len(items) and set(views.tolist()) == set(range(len(examples)))
    for view, item in zip(views.tolist(), items, strict=True):
        like = examples[view]
        assert (like.size, like.treatment) == (item.size, item.treatment)
        assert item.treatment.is_random or like.box() == item.box()
        assert (like.flip_x, like.flip_y, like.resolution) == (item.flip_x, item.flip_y, item.resolution)
    # two shapes of pictures, in the first set at two resolutions and mirrored in four ways
    assert len(examples) == 2 * 2 * 4 + 2 + 2


def test_ids_of_all_items_are_those_of_each() -> None:
    items = DatasetItems(RECORDS, [512, 256], bucket, Treatment(dataset=3), repeats=2, flip_x=True, flip_y=True)
    assert list(items.ids()) == [item.id for item in items]


def test_nothing_is_left() -> None:
    items = Items([expand(RECORDS, [256], 16)]).without([0, 1])
    assert len(items) == 0 and not items.views()[1] and items.buckets == {}
    assert items.sizes().shape == (0, 3) and Items([]).keys().shape == (0,)


def test_hashes_of_all_items(tmp_path: Path) -> None:
    for name, color in (("a", 1), ("b", 2), ("c", 1)):
        Image.new("L", (64, 64), color).save(tmp_path / f"{name}.png")
    items = Items([DatasetItems(scan(tmp_path).records, [64, 32], bucket, flip_x=True)]).without([0])
    digests = items.digests()
    assert digests.shape == (11, 2) and digests.dtype == np.uint64
    for digest, item in zip(digests, items, strict=True):
        assert digest.astype("<u8").tobytes() == item.record.digest
    assert len(np.unique(digests, axis=0)) == 2


@pytest.mark.parametrize(
    ("weight", "repeats", "expected"),
    [
        (1.0, 1, [1]),
        (0.5, 1, [0.5]),
        (2.5, 1, [1, 1, 0.5]),
        (0.25, 2, [0.25, 0.25]),
        (1.5, 2, [1, 1, 0.5, 0.5]),
        (3.0, 1, [1, 1, 1]),
    ],
)
def test_a_weight_is_so_many_items_of_which_some_come_by_chance(
    weight: float, repeats: int, expected: list[float]
) -> None:
    items = DatasetItems(RECORDS, [256, 512], bucket, repeats=repeats, flip_x=True, weight=weight)
    chances = items.chances()
    assert len(chances) == len(items) == 8 * len(expected)
    assert chances.reshape(-1, len(expected)).tolist() == [expected] * 8
    assert chances.sum() == pytest.approx(8 * repeats * weight)
    whole = Items([items]).chances()
    assert whole is None if weight in (1.0, 3.0) else np.array_equal(whole, chances)


def test_random_crop_is_drawn_per_sample_and_epoch() -> None:
    wide = ListedRecords([Record(Path(name), name, 4000, 500) for name in ("a", "b")])
    first, second = DatasetItems(wide, [256], square, Treatment(random_crop=True))
    boxes = [first.box(0, 0), first.box(0, 1), first.box(1, 0), second.box(0, 0)]
    assert len(set(boxes)) == 4
    assert first.box(0, 0) == first.box(0, 0)
    assert all(left >= 0 and right <= 1 and right - left == pytest.approx(0.125) for left, _, right, _ in boxes)
    centered = DatasetItems(wide, [256], square)[0]
    assert centered.box(0, 0) == centered.box(5, 9) == (0.4375, 0, 0.5625, 1)


def test_text_is_drawn_per_sample_and_epoch() -> None:
    records = ListedRecords([Record(Path("a"), "a", 64, 64, "a, b, c, d, e")])
    item, repeat = DatasetItems(records, [64], bucket, Treatment(caption=CaptionRule(shuffle=True)), repeats=2)
    assert item.text(0, 0) == item.text(0, 0)
    assert len({item.text(0, epoch) for epoch in range(9)} | {repeat.text(0, 0)}) > 5


def test_pixels_of_an_item(tmp_path: Path) -> None:
    # left half red, right half blue, with a green bar on top that a square crop of the middle keeps
    array = np.zeros((100, 300, 3), dtype=np.uint8)
    array[:, :150, 0] = array[:, 150:, 2] = 255
    array[:50, :, 1] = 255
    Image.fromarray(array).save(tmp_path / "a.png")
    records = scan(tmp_path).records
    plain, mirrored = DatasetItems(records, [64], square, flip_x=True)
    pixels = item_pixels(plain)
    assert pixels.shape == (64, 64, 3)
    assert pixels[5, 5].tolist() == [255, 255, 0] and pixels[-5, -5].tolist() == [0, 0, 255]
    assert np.array_equal(item_pixels(mirrored), pixels[:, ::-1])
    turned = next(item for item in DatasetItems(records, [64], bucket, flip_y=True) if item.flip_y)
    assert item_pixels(turned)[-5, 5].tolist() == [255, 255, 0]


def test_reduced_decoding_of_a_crop_keeps_the_detail(tmp_path: Path) -> None:
    ramp = (np.arange(2400)[None, :] + 7 * np.arange(1200)[:, None]) // 5 % 2 * 200
    path = tmp_path / "a.jpg"
    Image.fromarray(ramp.astype(np.uint8)).save(path, quality=95)
    (item,) = DatasetItems(scan(tmp_path).records, [256], square)
    assert open_image(path, at_least=item.size).width == 1200
    whole = fit(open_image(path), item.size, item.box()).astype(int)
    assert np.abs(item_pixels(item).astype(int) - whole).mean() < 2


def test_crop_numbers_are_pixels_of_the_scaled_picture(tmp_path: Path) -> None:
    Image.new("RGB", (300, 100)).save(tmp_path / "a.png")
    records = scan(tmp_path).records
    whole = expand(records, [64], 16)[0]
    assert crop_numbers(whole) == [100, 300, 0, (whole.size[1] * 3 - whole.size[0]) / 2, *whole.size[::-1]]
    middle = DatasetItems(records, [64], square)[0]
    # scaled to 192 x 64, of which 64 x 64 in the middle
    assert crop_numbers(middle) == [100, 300, 0, 64, 64, 64]
    # of a wider picture something is cropped away at random; mirrored, it is what is left of it on the other side
    Image.new("RGB", (370, 100)).save(tmp_path / "a.png")
    random = partial(DatasetItems, treatment=Treatment(random_crop=True), flip_x=True)
    for item in random(scan(tmp_path).records, [64], bucket):
        left, _, right, _ = item.box(7, 1)
        assert right - left < 0.95 and abs(left - (1 - right)) > 0.01
        expected = (1 - right if item.flip_x else left) * item.size[1] * 3.7
        assert crop_numbers(item, 7, 1)[2:4] == [0, round(expected)]
