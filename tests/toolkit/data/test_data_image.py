"""Every kind of picture file against the pixels that it shows."""

import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from toolkit.data.pictures.image import BrokenImage, fit, open_image, read_header, read_size, to_pixels

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


def test_a_picture_of_too_many_pixels_is_refused_in_plain_words(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b""))
    with pytest.raises(BrokenImage, match="more than 178,956,970 pixels; scale it down"):
        read_header(tmp_path / "a.png")


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


# -- formats against the pixels that they show ------------------------------------------------------------------------


def test_16_bit_tiff(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "gray.tif")
    assert np.asarray(open_image(tmp_path / "gray.tif"))[0, :, 0].tolist() == [0, 1, 128, 255]
    color = np.array([[[65535, 32896, 0], [257, 514, 771]]], dtype=np.uint16)
    for order, name in (("<", "little.tiff"), (">", "big.tif")):
        path = _tiff_of_16_bits(tmp_path / name, color, order)
        assert read_size(path) == (2, 1)
        assert np.asarray(open_image(path)).tolist() == [[[255, 128, 0], [1, 2, 3]]]


def _tiff_of_16_bits(path: Path, values: np.ndarray, order: str) -> Path:
    """An uncompressed RGB TIFF with 16 bits per channel, which Pillow cannot write."""
    height, width, _ = values.shape
    data = values.astype(f"{order}u2").tobytes()
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 0), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 0), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(data))]
    bits_at = 8 + 2 + 12 * len(entries) + 4
    places = {258: bits_at, 273: bits_at + 6}
    body = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        value = places.get(tag, value)
        # a short lies in the first two of the four bytes
        packed = struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value)
        body += struct.pack(f"{order}HHI", tag, kind, count) + packed
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    path.write_bytes(head + body + bytes(4) + struct.pack(f"{order}3H", 16, 16, 16) + data)
    return path


def test_16_bit_gray_that_is_turned(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 65535, 32896]], dtype=np.uint16)).save(path, exif=_exif(6))
    assert read_size(path) == (1, 3)
    assert np.asarray(open_image(path))[:, 0, 0].tolist() == [0, 255, 128]


def test_16_bit_gray_with_alpha(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    row = b"\0" + struct.pack(">4H", 65535, 65535, 32896, 0)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 4, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(row)) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    assert np.asarray(open_image(path, background=(7, 8, 9))).tolist() == [[[255] * 3, [7, 8, 9]]]


def test_a_profile_of_cmyk_decides_the_colors(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    image.save(path, quality=100, icc_profile=_cmyk_profile())
    # the profile says that full cyan is a dark red, which plain conversion would show as cyan
    red, green, blue = np.asarray(open_image(path))[8, 8].astype(int)
    assert 90 < red < 150 and green < 40 and blue < 60
    image.save(path, quality=100)
    _assert_near(path, np.full((16, 16, 3), (0, 255, 255)), 3)


def _cmyk_profile() -> bytes:
    """The smallest profile of a printer: white without ink, black with black ink, else cyan gives Lab (25, 48, 30)."""
    grid = bytearray()
    for corner in range(16):
        # Lab in 8 bits; of the four inks cyan changes most slowly, and black fastest
        red, white, black = bytes([64, 128 + 48, 128 + 30]), bytes([255, 128, 128]), bytes([0, 128, 128])
        grid += black if corner & 1 else red if corner & 8 else white
    ramp = bytes(range(256))
    unit = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + ramp * 4 + bytes(grid) + ramp * 3
    table += bytes(-len(table) % 4)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    text = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    text += bytes(-len(text) % 4)
    parts, offset, index = [(b"desc", text), (b"wtpt", white), (b"A2B0", table)], 128 + 4 + 36, b""
    for name, data in parts:
        index += name + struct.pack(">II", offset, len(data))
        offset += len(data)
    head = struct.pack(">I4sI4s4s4s", offset, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(4 + 4 + 4 + 4 + 8 + 4) + struct.pack(">3i", 63190, 65536, 54061)
    head += bytes(128 - len(head))
    return head + struct.pack(">I", len(parts)) + index + b"".join(data for _, data in parts)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_an_animation_shows_its_first_frame(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    first, second = (Image.new("RGB", (16, 16), color) for color in (BLUE, RED))
    first.save(path, save_all=True, append_images=[second], duration=100, lossless=True)
    assert read_header(path) == ((16, 16), True)
    assert (np.asarray(open_image(path)) == BLUE).all()
    first.save(path)
    assert read_header(path) == ((16, 16), False)


def test_an_animation_that_breaks_off_still_has_a_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [Image.effect_noise((32, 32), level).convert("P") for level in (10, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    alone = tmp_path / "b.gif"
    frames[0].save(alone)
    path.write_bytes(path.read_bytes()[: alone.stat().st_size + 60])
    assert read_header(path)[0] == (32, 32)
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(open_image(alone)))


def test_a_transparent_gif_shows_the_background(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    image = Image.frombytes("P", (2, 1), bytes([0, 1]))
    image.putpalette([*RED, *GREEN])
    image.save(path, transparency=1)
    assert np.asarray(open_image(path, background=(1, 2, 3))).tolist() == [[list(RED), [1, 2, 3]]]


def test_photographs_of_telephones_are_no_animations(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photo, depth = Image.fromarray(_blocks(CORNERS)), Image.new("RGB", (8, 8))
    photo.save(path, format="MPO", save_all=True, append_images=[depth], quality=95)
    assert read_header(path) == ((96, 64), False)
    assert np.abs(np.asarray(open_image(path)).astype(int)[16::32, 16::32] - CORNERS).max() <= 3


@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 0), ("WEBP", 0), ("BMP", 0), ("TIFF", 0), ("AVIF", 12)])
def test_the_ending_may_be_wrong(tmp_path: Path, kind: str, tolerance: int) -> None:
    path = tmp_path / "a.jpg"
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "AVIF" else {}
    flat = np.full((32, 48, 3), (200, 60, 90), np.uint8)
    Image.fromarray(flat).save(path, format=kind, **options)
    assert read_size(path) == (48, 32)
    _assert_near(path, flat, tolerance)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_tiff_is_turned_once(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.tif", exif=exif)
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}
    expected = image.transpose(turned[orientation]) if orientation in turned else image
    assert read_size(tmp_path / "a.tif") == expected.size
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.tif")), np.asarray(expected))


def test_a_large_photograph_gives_no_warning(tmp_path: Path) -> None:
    Image.new("1", (10000, 9000)).save(tmp_path / "a.png")
    code = f"from toolkit.data.pictures.image import read_size; print(read_size({str(tmp_path / 'a.png')!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.split() == ["(10000,", "9000)"] and not done.stderr
