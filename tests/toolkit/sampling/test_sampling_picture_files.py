"""Names of sampled pictures and what is written inside them."""

import re
from pathlib import Path

import pytest
from PIL import Image

from toolkit.sampling.picture_files import a1111_text, list_pictures, read_metadata, save_picture

FACTS = {
    "prompt": "a caf\u00e9 \u732b",
    "negative": "blurry",
    "seed": 42,
    "width": 64,
    "height": 48,
    "guidance": 4.0,
    "steps": 20,
}
TEXT = "a caf\u00e9 \u732b\nNegative prompt: blurry\nSteps: 20, CFG scale: 4.0, Seed: 42, Size: 64x48"


@pytest.mark.parametrize("ext", ["jpg", "png", "webp"])
def test_round_trip(tmp_path: Path, ext: str) -> None:
    picture = Image.new("RGB", (64, 48), "#804020")
    path = save_picture(picture, tmp_path / "samples", 500, 3, 12, ext, FACTS)
    assert re.fullmatch(r"\d{13}__000000500_03\." + ext, path.name)
    assert read_metadata(path) == {**FACTS, "step": 500, "index": 3}
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with Image.open(path) as image:
        assert image.size == (64, 48)
        assert max(abs(a - b) for a, b in zip(image.convert("RGB").getpixel((5, 5)), (128, 64, 32), strict=True)) <= 6  # type: ignore[arg-type]
        if ext == "png":
            assert image.info["parameters"] == TEXT
        else:
            comment = image.getexif().get_ifd(0x8769)[0x9286]
            assert comment[:8] == b"UNICODE\0" and comment[8:].decode("utf-16-be") == TEXT


def test_transparency_becomes_a_jpg(tmp_path: Path) -> None:
    assert save_picture(Image.new("RGBA", (8, 8)), tmp_path, 1, 0, 1, "jpg", {}).exists()


def test_pictures_of_other_programs_have_no_metadata(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
        assert read_metadata(tmp_path / name) == {}


def test_listing_is_by_step_and_index_and_takes_the_later_of_two(tmp_path: Path) -> None:
    for name in (
        "1724085406830__000000500_0.jpg",
        "1724085406999__000000500_0.png",
        "1724085406831__000000500_1.jpg",
        "1724085500000__000000000_0.jpg",
        "contact_sheet.png",
        "notes.txt",
        ".aitk-tmp-0123456789ab-1724085406830__000000900_0.jpg",
    ):
        (tmp_path / name).touch()
    found = [(p.step, p.index, p.path.suffix) for p in list_pictures(tmp_path)]
    assert found == [(0, 0, ".jpg"), (500, 0, ".png"), (500, 1, ".jpg")]
    assert list_pictures(tmp_path / "absent") == []


def test_text_leaves_out_what_is_unknown() -> None:
    assert a1111_text({"prompt": "a cat", "seed": 1}) == "a cat\nSeed: 1"


def test_a_picture_that_is_made_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    first = save_picture(Image.new("RGB", (8, 8), "red"), tmp_path, 1, 0, 2, "png", FACTS)
    again = save_picture(Image.new("RGB", (8, 8), "blue"), tmp_path, 1, 0, 2, "png", FACTS)
    assert again == first and [path.name for path in tmp_path.iterdir()] == [first.name]
    with Image.open(again) as image:
        assert image.getpixel((0, 0)) == (0, 0, 255)


def test_one_that_is_made_otherwise_is_the_later_one_whatever_the_clock_says(tmp_path: Path) -> None:
    first = save_picture(Image.new("RGB", (8, 8)), tmp_path, 1, 0, 1, "png", FACTS)
    ahead = first.rename(tmp_path / "9999999999999__000000001_0.png")
    second = save_picture(Image.new("RGB", (8, 8)), tmp_path, 1, 0, 1, "png", {**FACTS, "seed": 43})
    assert second.name == "10000000000000__000000001_0.png" and ahead.exists()
    assert [found.path for found in list_pictures(tmp_path)] == [second]
