"""One picture that lines up many: rows with a label at the left, columns with a heading, each picture whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from toolkit.atomic import atomic_path
from toolkit.sampling.lettering import font, write_block

PAPER = "#fafaf8"
INK = "#1f2328"
FAINT = "#7b8087"

_MARGIN = 24
_GAP = 10
_LABEL_WIDTH = 230
_HEADER_HEIGHT = 30
_TITLE_HEIGHT = 44
_LOWEST_ROW = 48
_LARGE_PIXELS = 16_000_000


@dataclass(frozen=True)
class Row:
    """What its pictures have in common, and the pictures by the heading of their column."""

    label: str
    details: str
    pictures: dict[str, Image.Image]


@dataclass(frozen=True)
class Column:
    """Where the pictures under one heading stand."""

    heading: str
    left: int
    right: int

    @property
    def middle(self) -> int:
        return (self.left + self.right) // 2


def longest_side(num_columns: int) -> int:
    """How large pictures are shown, so that a sheet of many columns stays handy."""
    return max(192, min(384, 2880 // num_columns))


def draw_sheet(rows: Sequence[Row], headings: Sequence[str], title: str = "") -> Image.Image:
    """Lay the rows out, each as high as its highest picture, and draw them; there must be a picture."""
    heights = [max(_LOWEST_ROW, *(picture.height for picture in row.pictures.values())) for row in rows]
    columns = _columns(rows, headings)
    top = _MARGIN + (_TITLE_HEIGHT if title else 0)
    bottom = top + _HEADER_HEIGHT + sum(heights) + _GAP * (len(rows) - 1) + _MARGIN
    sheet = Image.new("RGB", (columns[-1].right + _MARGIN, bottom), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        write_block(draw, (_MARGIN, _MARGIN - 4), title, 24, INK, (sheet.width - 2 * _MARGIN, 30))
    for column in columns:
        draw.text((column.middle, top + _HEADER_HEIGHT // 2 - 2), column.heading, FAINT, font(15), anchor="mm")
    y = top + _HEADER_HEIGHT
    for row, height in zip(rows, heights, strict=True):
        _write_label(draw, row, y, height)
        for column in columns:
            picture = row.pictures.get(column.heading)
            if picture is not None:
                sheet.paste(picture, (column.middle - picture.width // 2, y))
        y += height + _GAP
    return sheet


def save_sheet(sheet: Image.Image, folder: Path) -> Path:
    """Write contact_sheet.png, or .jpg if it is very large, in the place of an earlier one of either kind."""
    is_large = sheet.width * sheet.height > _LARGE_PIXELS
    path = folder / f"contact_sheet.{'jpg' if is_large else 'png'}"
    with atomic_path(path) as temporary:
        if is_large:
            sheet.save(temporary, "JPEG", quality=90)
        else:
            sheet.save(temporary, "PNG", optimize=False)
    (folder / f"contact_sheet.{'png' if is_large else 'jpg'}").unlink(missing_ok=True)
    return path


def open_fitted(path: Path, longest: int) -> Image.Image:
    """Open a picture and bring it to a size at which it can be looked at; of a video, a strip of frames."""
    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            return _strip(image, longest)
        # A JPEG is decoded at half or a quarter of its size where that is enough.
        image.draft("RGB", (longest, longest))
        picture = image.convert("RGB")
    return _to_size(picture, longest)


def _columns(rows: Sequence[Row], headings: Sequence[str]) -> list[Column]:
    """Place the columns side by side, each as wide as its widest picture and its heading."""
    columns: list[Column] = []
    for heading in headings:
        left = columns[-1].right + _GAP if columns else _MARGIN + _LABEL_WIDTH + 2 * _GAP
        widths = [row.pictures[heading].width for row in rows if heading in row.pictures]
        columns.append(Column(heading, left, left + max(round(font(15).getlength(heading)), *widths)))
    return columns


def _write_label(draw: ImageDraw.ImageDraw, row: Row, y: int, height: int) -> None:
    """Write the label beside its pictures, and its details below in small print."""
    small = 20 if row.details else 0
    end = write_block(draw, (_MARGIN, y), row.label, 16, INK, (_LABEL_WIDTH, height - small))
    if row.details:
        write_block(draw, (_MARGIN, end + 4), row.details, 13, FAINT, (_LABEL_WIDTH, y + height - end - 4))


def _strip(video: Image.Image, longest: int) -> Image.Image:
    """The first frame, the one in the middle and the last, side by side, each at most half as large as a picture."""
    last = video.n_frames - 1  # type: ignore[attr-defined]
    frames = []
    for number in dict.fromkeys((0, last // 2, last)):
        video.seek(number)
        frames.append(_to_size(video.convert("RGB"), longest // 2))
    strip = Image.new("RGB", (sum(frame.width for frame in frames), frames[0].height))
    for place, frame in enumerate(frames):
        strip.paste(frame, (place * frame.width, 0))
    return strip


def _to_size(picture: Image.Image, longest: int) -> Image.Image:
    side = max(picture.size)
    if side < 128:
        factor = max(round(192 / side), 1)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return picture
