"""Every kind of picture file against the pixels that it shows."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from toolkit.data.image import BrokenImage, fit, open_image, read_size, to_pixels

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# [H, W, 3] with four different corners, so that every turn is told from every other
CORNERS = np.array([[RED, GREEN, GREEN], [BLUE, WHITE, WHITE]], dtype=np.uint8)
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _blocks(image: np.ndarray, side: int = 32) -> np.ndarray:
    return image.repeat(side, 0).repeat(side, 1)


def _assert_near(path: Path, expected: np.ndarray, tolerance: int) -> None:
    got = np.asarray(open_image(path)).astype(int)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_png(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(CORNERS).save(path, exif=_exif(orientation))
    expected = UPRIGHT[orientation](CORNERS)
    assert read_size(path) == expected.shape[1::-1]
    assert np.array_equal(np.asarray(open_image(path)), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_jpeg(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(_blocks(CORNERS)).save(path, quality=95, subsampling=0, exif=_exif(orientation))
    expected = UPRIGHT[orientation](_blocks(CORNERS))
    assert read_size(path) == expected.shape[1::-1]
    got = np.asarray(open_image(path)).astype(int)
    assert np.abs(got - expected).max() < 60 and np.abs(got - expected).mean() < 2


def test_orientation_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(CORNERS).save(path)
    end = _chunk(b"IEND", b"")
    data = path.read_bytes()
    assert data.endswith(end)
    path.write_bytes(data[: -len(end)] + _chunk(b"eXIf", _exif(6).tobytes().removeprefix(b"Exif\0\0")) + end)
    assert read_size(path) == (2, 3)
    assert np.array_equal(np.asarray(open_image(path)), np.rot90(CORNERS, -1))


def test_broken_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(CORNERS).save(path, exif=b"Exif\0\0II*\0\xff\xff")
    assert read_size(path) == (3, 2)
    assert np.array_equal(np.asarray(open_image(path)), CORNERS)


@pytest.mark.parametrize("ext", ["bmp", "png", "webp"])
def test_lossless_formats(tmp_path: Path, ext: str) -> None:
    path = tmp_path / f"a.{ext}"
    Image.fromarray(CORNERS).save(path, lossless=True)
    assert read_size(path) == (3, 2)
    assert np.array_equal(np.asarray(open_image(path)), CORNERS)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
@pytest.mark.parametrize("orientation", [1, 6])
def test_avif(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.avif"
    Image.fromarray(_blocks(CORNERS)).save(path, quality=100, subsampling="4:4:4", exif=_exif(orientation))
    expected = UPRIGHT[orientation](_blocks(CORNERS))
    assert read_size(path) == expected.shape[1::-1]
    _assert_near(path, expected, 12)


def test_content_counts_not_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(CORNERS).save(path, format="PNG")
    assert np.array_equal(np.asarray(open_image(path)), CORNERS)


def test_animated_webp_shows_its_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, BLUE)]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(np.asarray(open_image(path)), np.full((4, 4, 3), RED))


def test_palette(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(CORNERS).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    with Image.open(path) as image:
        assert image.mode == "P"
    assert np.array_equal(np.asarray(open_image(path)), CORNERS)


def test_palette_with_transparency(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.save(path, transparency=bytes([255, 0, 128]))
    got = np.asarray(open_image(path, background=(0, 0, 0)))
    assert np.array_equal(got, [[RED, (0, 0, 0), (0, 0, 128)]])


def test_one_transparent_color(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(CORNERS).save(path, transparency=GREEN)
    expected = np.where((CORNERS == GREEN).all(-1, keepdims=True), (9, 8, 7), CORNERS)
    assert np.array_equal(np.asarray(open_image(path, background=(9, 8, 7))), expected)


@pytest.mark.parametrize(("mode", "pixel"), [("RGBA", (200, 100, 0, 51)), ("LA", (200, 51))])
def test_alpha_shows_the_background(tmp_path: Path, mode: str, pixel: tuple[int, ...]) -> None:
    path = tmp_path / "a.png"
    Image.new(mode, (2, 2), pixel).save(path)
    color = np.array(pixel[:3] if mode == "RGBA" else pixel[:1] * 3)
    for background in (WHITE, (0, 40, 80)):
        expected = (color * 0.2 + np.array(background) * 0.8).round()
        got = np.asarray(open_image(path, background)).astype(int)
        assert np.abs(got - expected).max() <= 1


def test_background_is_white_unless_stated(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(path)
    assert np.asarray(open_image(path)).min() == 255


def test_16_bit_gray_is_scaled_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    values = np.array([[0, 257, 32896, 65535, 1000]], dtype=np.uint16)
    Image.fromarray(values).save(path)
    assert np.asarray(open_image(path))[0, :, 0].tolist() == [0, 1, 128, 255, 4]


def test_16_bit_color(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    row = b"\0" + struct.pack(">6H", 65535, 32896, 0, 257, 514, 771)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(row)) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    assert np.asarray(open_image(path)).tolist() == [[[255, 128, 0], [1, 2, 3]]]


@pytest.mark.parametrize("mode", ["L", "1"])
def test_gray(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert(mode).save(path)
    assert np.asarray(open_image(path)).tolist() == [[[0] * 3, [255] * 3]]


def test_cmyk_without_profile(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=100)
    _assert_near(path, np.full((16, 16, 3), RED), 3)


def test_cmyk_with_an_unusable_profile(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=100, icc_profile=profile)
    _assert_near(path, np.full((16, 16, 3), RED), 3)


def test_float_pixels_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0.5]], dtype=np.float32)).save(path, format="TIFF")
    with pytest.raises(BrokenImage, match=r"a\.png: .*floating point"):
        open_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty file"), (b"<html>", "not an image"), (None, "no such file"), (b"\x89PNG\r\n\x1a\n", "a.png")],
)
def test_broken_file_is_named_with_its_reason(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    for read in (read_size, open_image):
        with pytest.raises(BrokenImage, match=reason) as caught:
            read(path)
        assert caught.value.path == path and str(path) in str(caught.value)


def test_truncated_body(tmp_path: Path) -> None:
    whole, path = BytesIO(), tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, format="JPEG")
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    assert read_size(path) == (64, 64)
    with pytest.raises(BrokenImage, match="truncated"):
        open_image(path)


def test_exchanged_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(CORNERS).save(path)
    with pytest.raises(BrokenImage, match="is now 3 x 2, was 2 x 3"):
        open_image(path, expected=(2, 3))


def test_large_jpeg_is_decoded_at_reduced_size(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    ramp = np.linspace(0, 255, 800).astype(np.uint8)[None, :, None].repeat(1600, 0).repeat(3, 2)
    Image.fromarray(ramp).save(path, exif=_exif(6))
    # seen it is 1600 x 800
    small = open_image(path, at_least=(200, 100))
    assert small.size == (400, 200)
    assert open_image(path, at_least=(801, 401)).size == (1600, 800)
    reference, got = (np.asarray(fit(image, (200, 100))).astype(int) for image in (open_image(path), small))
    assert np.abs(reference - got).max() <= 4


def test_fit_takes_the_box_and_mirrors() -> None:
    image = Image.fromarray(CORNERS)
    assert np.array_equal(fit(image, (3, 2)), CORNERS)
    assert np.array_equal(fit(image, (3, 2), flip_x=True), CORNERS[:, ::-1])
    assert np.array_equal(fit(image, (3, 2), flip_y=True), CORNERS[::-1])
    left = fit(Image.fromarray(_blocks(CORNERS)), (8, 16), box=(0, 0, 1 / 3, 1))
    assert left.shape == (16, 8, 3) and left.dtype == np.uint8
    assert np.array_equal(left[0, 0], RED) and np.array_equal(left[0, 3], RED) and np.array_equal(left[-1, 0], BLUE)


def test_fit_survives_rounding_errors_of_shares() -> None:
    for width in range(1, 200):
        left = 1 - 0.7
        fit(Image.new("RGB", (width, 10)), (4, 4), box=(left, 0, left + 0.7000000000000001, 1))


def test_reduction_does_not_alias() -> None:
    stripes = np.tile(np.array([0, 255], dtype=np.uint8)[None, :, None], (64, 256, 3))
    assert np.abs(fit(Image.fromarray(stripes), (32, 4)).astype(int) - 127).max() <= 8


def test_to_pixels() -> None:
    batch = np.stack([CORNERS, 255 - CORNERS])
    pixels = to_pixels(batch)
    assert pixels.shape == (2, 3, 2, 3) and pixels.is_contiguous()
    assert pixels[0, :, 0, 0].tolist() == [1, -1, -1]
    assert pixels[1, :, 0, 0].tolist() == [-1, 1, 1]
    assert to_pixels(np.full((1, 1, 1, 3), 128, dtype=np.uint8)).mean().item() == pytest.approx(
        128 / 127.5 - 1, abs=1e-6
    )
