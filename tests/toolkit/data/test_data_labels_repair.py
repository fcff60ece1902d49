"""Faulty pictures are written anew in another folder, with the right pixels; originals stay as they are."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from toolkit.data.labels.repair import Report, repair

GRADIENT = np.stack(np.broadcast_arrays(np.arange(64)[:, None] * 4, np.arange(48)[None] * 5, 128), -1).astype(np.uint8)
"""[64, 48, 3], no two rows or columns alike."""
PICTURE = Image.fromarray(GRADIENT)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    return data


def put(folder: Path, name: str, data: bytes, caption: str = "") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if caption:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def run(folder: Path, **options: Any) -> tuple[Path, Report]:
    out = folder.parent / "out"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report = [Report(), *repair(folder, out, **options)][-1]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    return out, report


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_fine_picture_is_copied_to_the_byte_with_its_caption(folder: Path) -> None:
    put(folder, "sub/a.png", encoded(PICTURE, "PNG"), "a gradient")
    out, report = run(folder)
    assert (out / "sub/a.png").read_bytes() == (folder / "sub/a.png").read_bytes()
    assert (out / "sub/a.txt").read_text() == "a gradient"
    assert (report.num_copied, report.num_captions, report.repaired, report.lost) == (1, 1, [], [])


def test_a_jpeg_that_is_cut_short_keeps_what_there_is(folder: Path) -> None:
    whole = encoded(PICTURE, "JPEG", quality=95)
    start = whole.index(b"\xff\xda")
    put(folder, "a.jpg", whole[: start + (len(whole) - start) * 3 // 4], "cut")
    put(folder, "b.jpg", whole[: start + (len(whole) - start) // 4])
    out, report = run(folder)
    assert "cut short (" in report.repaired[0].faults[0] and report.repaired[0].new_name == "a.jpg"
    assert np.abs(pixels(out / "a.jpg")[:24].astype(int) - GRADIENT[:24]).max() < 30
    Image.open(out / "a.jpg").load()
    assert (out / "a.txt").exists() and not (out / "b.jpg").exists()
    assert len(report.lost) == 1 and report.lost[0].startswith("b.jpg: cut short: ")


def test_a_wrong_ending_is_put_right_and_the_caption_follows(folder: Path) -> None:
    put(folder, "a.jpg", encoded(PICTURE, "PNG"), "png")
    put(folder, "b", encoded(PICTURE, "JPEG", quality=100), "jpeg")
    put(folder, "c.txt.bak", b"no picture")
    out, report = run(folder)
    assert [(each.new_name, each.faults) for each in report.repaired] == [
        ("a.png", ("PNG by content",)),
        ("b.jpg", ("JPEG without ending",)),
    ]
    assert (pixels(out / "a.png") == GRADIENT).all()
    assert (out / "a.txt").read_text() == "png" and (out / "b.txt").read_text() == "jpeg"
    assert not report.lost


def test_two_pictures_that_would_share_a_name_do_not(folder: Path) -> None:
    put(folder, "a.jpg", encoded(PICTURE, "PNG"), "both")
    put(folder, "a.png", encoded(PICTURE.rotate(180), "PNG"))
    out, _ = run(folder)
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "a.txt", "a_png.png", "a_png.txt"]
    assert (pixels(out / "a.png") == GRADIENT).all() and (pixels(out / "a_png.png") == GRADIENT[::-1, ::-1]).all()


def test_exif_orientation_is_applied_and_the_profile_kept(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    put(folder, "a.jpg", encoded(PICTURE, "JPEG", quality=100, subsampling=0, exif=exif, icc_profile=SRGB))
    out, report = run(folder)
    assert report.repaired[0].faults == ("turned by EXIF",)
    with Image.open(out / "a.jpg") as image:
        assert image.size == (64, 48) and not image.getexif() and image.info["icc_profile"] == SRGB
    assert np.abs(pixels(out / "a.jpg").astype(int) - np.rot90(GRADIENT, -1)).max() < 8


def test_cmyk_16_bit_and_animations_become_8_bit_rgb(folder: Path) -> None:
    put(folder, "cmyk.jpg", encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    deep = np.full((16, 16), 32896, np.uint16)
    put(folder, "deep.png", encoded(Image.fromarray(deep), "PNG"))
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    put(folder, "moving.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    out, report = run(folder)
    assert [each.faults for each in report.repaired] == [("CMYK",), ("16 bit",), ("animated",)]
    assert (pixels(out / "deep.png") == 128).all()
    assert (pixels(out / "moving.png") == [255, 0, 0]).all()
    assert np.abs(pixels(out / "cmyk.jpg").astype(int) - [255, 0, 0]).max() < 40


def test_transparency_stays_and_needs_png(folder: Path) -> None:
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 100))
    put(folder, "a.jpg", encoded(clear, "PNG"))
    out, _ = run(folder, kind="jpeg")
    with Image.open(out / "a.png") as image:
        assert image.getpixel((0, 0)) == (255, 0, 0, 100)


def test_the_format_can_be_chosen(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    put(folder, "a.jpg", encoded(PICTURE, "JPEG", exif=exif))
    put(folder, "b.png", encoded(PICTURE, "PNG", exif=exif))
    assert [each.new_name for each in run(folder, kind="png")[1].repaired] == ["a.png", "b.png"]
    folder = folder.rename(folder.parent / "again")
    (folder.parent / "out").rename(folder.parent / "first")
    assert [each.new_name for each in run(folder, kind="jpeg")[1].repaired] == ["a.jpg", "b.jpg"]


def test_a_photograph_of_a_telephone_is_a_fine_jpeg(folder: Path) -> None:
    put(folder, "a.jpg", encoded(PICTURE, "MPO", save_all=True, append_images=[PICTURE.resize((8, 8))]))
    _, report = run(folder)
    assert (report.num_copied, report.lost) == (1, [])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_waited_for_by_nobody(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    assert run(folder)[1].lost == ["pipe.jpg: not a regular file"]


def test_what_is_beyond_repair_is_named(folder: Path) -> None:
    put(folder, "empty.jpg", b"", "empty")
    put(folder, "text.png", b"this is no picture")
    put(folder, "fine.png", encoded(PICTURE, "PNG"))
    out, report = run(folder)
    assert report.lost == ["empty.jpg: empty file", "text.png: not an image that can be read"]
    assert sorted(path.name for path in out.iterdir()) == ["fine.png"]


def test_a_run_that_was_cut_short_goes_on(folder: Path) -> None:
    put(folder, "a.png", encoded(PICTURE, "PNG"))
    out, _ = run(folder)
    (out / "a.png").write_bytes(b"mine")
    _, report = run(folder)
    assert (out / "a.png").read_bytes() == b"mine" and report.num_there == 1


def test_only_repaired_leaves_fine_ones_out(folder: Path) -> None:
    put(folder, "a.png", encoded(PICTURE, "PNG"), "fine")
    put(folder, "b.jpg", encoded(PICTURE, "PNG"))
    out, _ = run(folder, only_repaired=True)
    assert [path.name for path in out.iterdir()] == ["b.png"]


@pytest.mark.parametrize("out", ["data", "data/new", "data/../data"])
def test_the_new_folder_is_never_in_the_old_one(folder: Path, out: str) -> None:
    with pytest.raises(ValueError, match="in the data set itself"):
        next(repair(folder, folder.parent / out), None)
