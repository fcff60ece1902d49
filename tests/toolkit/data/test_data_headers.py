"""Sizes from the first bytes: what Pillow says, or nothing."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from toolkit.data.pictures.image import BrokenImage, read_size
from toolkit.data.scanning.headers import quick_size

MODES = {"png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "jpg": ("L", "RGB", "CMYK"), "webp": ("RGB", "RGBA")}


@pytest.mark.parametrize("ending", MODES)
def test_usual_pictures_are_answered(tmp_path: Path, ending: str) -> None:
    for mode in MODES[ending]:
        for lossless in (False, True):
            path = tmp_path / f"a.{ending}"
            Image.new(mode, (37, 21)).save(path, lossless=lossless, progressive=lossless)
            assert quick_size(path) == (37, 21) == read_size(path)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "avif"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_turned_pictures_are_answered_as_pillow_does_or_not_at_all(tmp_path: Path, ending: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    exif[0x010F] = "a camera"
    path = tmp_path / f"a.{ending}"
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    assert quick_size(path) in ((None,) if ending != "jpg" else (read_size(path),))
    assert read_size(path) == ((20, 40) if turn > 4 else (40, 20))


def test_notes_of_all_kinds_before_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    profile = bytes(range(256)) * 400
    Image.new("RGB", (30, 20)).save(path, icc_profile=profile, comment=b"x" * 60_000)
    assert quick_size(path) == (30, 20)
    data = path.read_bytes()
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'/>"
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + data[2:])
    assert quick_size(path) is None


def test_a_rotation_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    Image.effect_noise((300, 200), 90).save(path)
    data, note = path.read_bytes(), exif.tobytes()[6:]
    chunk = b"eXIf" + note
    late = struct.pack(">I", len(note)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    assert quick_size(path) == (300, 200)
    path.write_bytes(data[:-12] + late + data[-12:])
    assert quick_size(path) is None and read_size(path) == (200, 300)


def test_animations_are_left_to_pillow(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (90 * index, 0, 0)) for index in range(3)]
    for ending in ("png", "webp", "gif"):
        frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:])
        assert quick_size(tmp_path / f"a.{ending}") is None


def test_what_is_broken_is_left_to_pillow(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    for ending in ("png", "jpg", "webp"):
        path = tmp_path / f"a.{ending}"
        Image.effect_noise((64, 64), 90).convert("RGB").save(path, pnginfo=info)
        data = path.read_bytes()
        for content in (b"", data[:11], data[:25], b"\0" + data[1:]):
            path.write_bytes(content)
            assert quick_size(path) is None
            with pytest.raises(BrokenImage):
                read_size(path)
    path.write_bytes(data[:-200])
    assert quick_size(path) is None
    assert quick_size(tmp_path / "gone.png") is None
    # sizes that Pillow refuses, and a header that was damaged
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    for checksum in (zlib.crc32(header), 0):
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", checksum))
        assert quick_size(path) is None
