"""One picture file becomes upright 8-bit RGB pixels: orientation, palettes, CMYK, 16 bit and alpha are settled here."""

from __future__ import annotations

import io
import struct
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange
from PIL import Image, ImageCms

from toolkit.data.bucket import Box, Size
from toolkit.data.pictures.part import opened
from toolkit.data.records import Part

if TYPE_CHECKING:
    import torch

# photographs of today are that large; what is twice as large is an error
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

Color = tuple[int, int, int]
WHITE: Color = (255, 255, 255)
ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "AVIF": (".avif",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
}
"""Formats and the endings that belong to them."""
# by content, whatever the file is called; formats that start other programs (EPS) are not among them
FORMATS = tuple(ENDINGS)
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# what Pillow raises for a file that is not as it should be
BAD_FILE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
)


class BrokenImage(ValueError):
    """A picture that cannot be read; says which and why."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = Path(path), reason

    def __reduce__(self) -> tuple[type[BrokenImage], tuple[Path, str]]:
        """How it gets to another process."""
        return type(self), (self.path, self.reason)


def read_size(path: Path | str, part: Part | None = None) -> Size:
    """Width and height as seen, from the header alone; `part` is where the picture lies in an archive."""
    return read_header(path, part)[0]


def read_header(path: Path | str, part: Part | None = None) -> tuple[Size, bool]:
    """The same, and whether more frames follow the first."""
    try:
        with opened(path, part) as file, Image.open(file, formats=FORMATS) as image:
            size = _upright(image.size, _orientation(image, path, part))
            return size, _has_more_frames(image)
    except BAD_FILE as error:
        raise broken(path, part, error) from error


def format_of(image: Image.Image) -> str:
    """A key of ENDINGS; the JPEGs of telephones, which thumbnails and depth maps follow in, are JPEGs."""
    return "JPEG" if image.format == "MPO" else image.format or ""


def _has_more_frames(image: Image.Image) -> bool:
    if format_of(image) == "JPEG":
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except BAD_FILE:
        return False


def has_alpha(path: Path | str, part: Part | None = None) -> bool:
    """Whether a picture has transparent parts, as far as its header tells."""
    with opened(path, part) as file, Image.open(file, formats=FORMATS) as image:
        return image.has_transparency_data


def open_image(
    path: Path | str,
    background: Color | None = WHITE,
    at_least: Size | None = None,
    expected: Size | None = None,
    part: Part | None = None,
) -> Image.Image:
    """The first frame as upright RGB; transparent parts show the background, or without one stay so (RGBA).

    With `at_least`, a JPEG may be decoded at a half, quarter or eighth of its size as long as it stays twice as large:
    much faster, and the resampling that follows still has detail to work with. A file whose size is no longer the
    `expected` one was exchanged since it was scanned and counts as broken.
    """
    try:
        with opened(path, part) as file, Image.open(file, formats=FORMATS) as image:
            orientation = _orientation(image, path, part)
            size = _upright(image.size, orientation)
            check_size(size, expected)
            if at_least:
                width, height = _upright(at_least, orientation)
                image.draft(None, (2 * width, 2 * height))
            image.load()
            turned = image.transpose(TURNS[orientation]) if orientation in TURNS else image
            if background is None and turned.has_transparency_data:
                return turned.convert("RGBA")
            return to_rgb(turned, background or WHITE)
    except BAD_FILE as error:
        raise broken(path, part, error) from error


def fit(
    image: Image.Image, size: Size, box: Box = (0, 0, 1, 1), flip_x: bool = False, flip_y: bool = False
) -> np.ndarray:
    """The part `box` of a picture at `size`, then mirrored: uint8 [H, W, 3]."""
    width, height = image.size
    # clamped, because a sum of shares may exceed 1 by a rounding error, which Pillow refuses
    region = (box[0] * width, box[1] * height, min(box[2] * width, width), min(box[3] * height, height))
    pixels = np.asarray(image.resize(size, Image.Resampling.LANCZOS, box=region, reducing_gap=3.0))
    # a copy, because Pillow's own memory is read-only
    return np.array(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1], order="C")


def to_pixels(batch: np.ndarray) -> torch.Tensor:
    """uint8 [B, (F,) H, W, 3] -> float [B, 3, (F,) H, W] in -1..1."""
    import torch

    channels_first = rearrange(torch.from_numpy(batch), "b ... c -> b c ...")
    return channels_first.contiguous().float().div_(127.5).sub_(1)


def check_size(size: Size, expected: Size | None) -> None:
    """Raise ValueError if a file was exchanged since it was scanned."""
    if expected and size != expected:
        raise ValueError(f"is now {size[0]} x {size[1]}, was {expected[0]} x {expected[1]} when it was scanned")


def _upright(size: Size, orientation: int) -> Size:
    """Width and height, exchanged where the orientation turns the picture by a quarter."""
    return (size[1], size[0]) if orientation in (5, 6, 7, 8) else size


def _orientation(image: Image.Image, path: Path | str, part: Part | None) -> int:
    """The EXIF orientation, 1 where there is none, or where Pillow turns the picture itself."""
    if image.format == "TIFF":
        return 1
    try:
        # not image.getexif(): for a PNG without the chunk in front that decodes the whole picture
        exif = Image.Image.getexif(image)
        if image.format == "PNG" and ORIENTATION not in exif:
            exif.load(_late_exif(path, part))
        return exif.get(ORIENTATION, 1)
    except BAD_FILE:
        # a broken note in the file says nothing about its pixels
        return 1


def _late_exif(path: Path | str, part: Part | None) -> bytes:
    """The eXIf chunk of a PNG, wherever it is, by hopping from chunk to chunk."""
    start, size = part or (0, sys.maxsize)
    end = start + size
    with open(path, "rb") as file:
        file.seek(start + 8)
        while file.tell() < end and len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return file.read(min(length, end - file.tell()))
            file.seek(length + 4, io.SEEK_CUR)
    return b""


def to_rgb(image: Image.Image, background: Color) -> Image.Image:
    """8-bit RGB; transparent parts show the background."""
    if image.mode.startswith("I"):
        image = _to_8_bit(image)
    if image.has_transparency_data:
        behind = Image.new("RGBA", image.size, (*background, 255))
        return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")
    if image.mode == "CMYK" and (profile := image.info.get("icc_profile")):
        return _from_profile(image, profile)
    if image.mode == "F":
        raise ValueError("pixels are floating point numbers of unknown range")
    # converting what is RGB already would copy all of it
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit gray, scaled; Pillow's own conversion would clip all above 255 to white."""
    values = np.asarray(image).astype(np.float32)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("pixels are 32-bit numbers of unknown range")
    return Image.fromarray((values / 257).round().astype(np.uint8))


def _from_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """CMYK through its own color profile, plainly where that is unusable."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        turned = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB")
    assert turned is not None
    return turned


def broken(path: Path | str, part: Part | None, error: BaseException) -> BrokenImage:
    """The error that names a file, or where in an archive it is, and why it cannot be read."""
    return BrokenImage(path if part is None else f"{path} (at byte {part[0]})", reason_of(path, error))


def reason_of(path: Path | str, error: BaseException) -> str:
    """Why a file cannot be read, in the user's terms."""
    file = Path(path)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if file.is_file() and file.stat().st_size == 0:
        return "empty file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image that can be read"
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; scale it down"
    # errors of FFmpeg have it too
    if strerror := getattr(error, "strerror", None):
        return str(strerror)
    return str(error) or type(error).__name__
