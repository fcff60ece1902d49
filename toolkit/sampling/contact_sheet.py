"""One picture that lines up all samples of a run: a row per prompt, a column per step.

It is built from the files alone, so that a resumed run, or a notebook, gets the same sheet.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from toolkit.atomic import atomic_path
from toolkit.sampling.lettering import font, write_block
from toolkit.sampling.picture_files import PictureFile, list_pictures, read_metadata

_log = logging.getLogger(__name__)

PAPER = "#fafaf8"
INK = "#1f2328"
FAINT = "#7b8087"

_MOST_COLUMNS = 12
_MARGIN = 24
_GAP = 10
_LABEL_WIDTH = 230
_HEADER_HEIGHT = 30
_TITLE_HEIGHT = 44
_LOWEST_ROW = 48
_LARGE_PIXELS = 16_000_000


@dataclass(frozen=True)
class Row:
    """One prompt with its pictures by step."""

    prompt: str
    details: str
    pictures: dict[int, Image.Image]


@dataclass(frozen=True)
class Column:
    """Where the pictures of one step stand."""

    step: int
    left: int
    right: int

    @property
    def text(self) -> str:
        return f"step {self.step}"

    @property
    def middle(self) -> int:
        return (self.left + self.right) // 2


def write_contact_sheet(folder: Path, title: str = "") -> Path | None:
    """Write contact_sheet.png (.jpg if it is very large) into the folder of the samples; None if there are none."""
    sheet = contact_sheet(folder, title)
    if sheet is None:
        return None
    is_large = sheet.width * sheet.height > _LARGE_PIXELS
    path = folder / f"contact_sheet.{'jpg' if is_large else 'png'}"
    with atomic_path(path) as temporary:
        if is_large:
            sheet.save(temporary, "JPEG", quality=90)
        else:
            sheet.save(temporary, "PNG", optimize=False)
    (folder / f"contact_sheet.{'png' if is_large else 'jpg'}").unlink(missing_ok=True)
    return path


def contact_sheet(folder: Path, title: str = "") -> Image.Image | None:
    """Return the sheet of the pictures in `folder`, or None if there are none."""
    files = list_pictures(folder)
    if not files:
        return None
    steps = choose_steps(sorted({file.step for file in files}))
    longest = max(192, min(384, 2880 // len(steps)))
    rows = _rows([file for file in files if file.step in set(steps)], longest)
    return _draw(rows, title) if rows else None


def choose_steps(steps: list[int], most: int = _MOST_COLUMNS) -> list[int]:
    """Return at most `most` of the steps: the first, the last, and evenly many between."""
    if len(steps) <= most:
        return steps
    return [steps[round(place * (len(steps) - 1) / (most - 1))] for place in range(most)]


def _rows(files: list[PictureFile], longest: int) -> list[Row]:
    """Group pictures by place in the config and by prompt: one edited between two runs gets a row of its own."""
    rows: dict[tuple[int, str], Row] = {}
    for file in files:
        try:
            facts, picture = read_metadata(file.path), _fit(file.path, longest)
        except OSError as error:
            # A damaged picture must not end a training run.
            _log.warning("%s is left out of the contact sheet: %s", file.path, error)
            continue
        prompt = str(facts.get("prompt", ""))
        row = rows.setdefault((file.index, prompt), Row(prompt or f"picture {file.index}", _details(facts), {}))
        row.pictures[file.step] = picture
    return [rows[key] for key in sorted(rows)]


def _details(facts: dict[str, Any]) -> str:
    """Return the settings in small print below the prompt."""
    parts = [f"{key} {facts[key]}" for key in ("seed", "guidance") if key in facts]
    return ", ".join([*parts, f"not: {facts['negative']}"] if facts.get("negative") else parts)


def _draw(rows: list[Row], title: str) -> Image.Image:
    """Lay the rows out, each as high as its highest picture, and draw them."""
    heights = [max(_LOWEST_ROW, *(picture.height for picture in row.pictures.values())) for row in rows]
    columns = _columns(rows)
    top = _MARGIN + (_TITLE_HEIGHT if title else 0)
    bottom = top + _HEADER_HEIGHT + sum(heights) + _GAP * (len(rows) - 1) + _MARGIN
    sheet = Image.new("RGB", (columns[-1].right + _MARGIN, bottom), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        write_block(draw, (_MARGIN, _MARGIN - 4), title, 24, INK, (sheet.width - 2 * _MARGIN, 30))
    for column in columns:
        draw.text((column.middle, top + _HEADER_HEIGHT // 2 - 2), column.text, FAINT, font(15), anchor="mm")
    y = top + _HEADER_HEIGHT
    for row, height in zip(rows, heights, strict=True):
        _write_label(draw, row, y, height)
        for column in columns:
            picture = row.pictures.get(column.step)
            if picture is not None:
                sheet.paste(picture, (column.middle - picture.width // 2, y))
        y += height + _GAP
    return sheet


def _columns(rows: list[Row]) -> list[Column]:
    """Place the columns side by side, each as wide as its widest picture and its heading."""
    columns: list[Column] = []
    for step in sorted({step for row in rows for step in row.pictures}):
        left = columns[-1].right + _GAP if columns else _MARGIN + _LABEL_WIDTH + 2 * _GAP
        heading = round(font(15).getlength(f"step {step}"))
        widths = [row.pictures[step].width for row in rows if step in row.pictures]
        columns.append(Column(step, left, left + max(heading, *widths)))
    return columns


def _write_label(draw: ImageDraw.ImageDraw, row: Row, y: int, height: int) -> None:
    """Write the prompt beside its pictures, and its settings below in small print."""
    small = 20 if row.details else 0
    end = write_block(draw, (_MARGIN, y), row.prompt, 16, INK, (_LABEL_WIDTH, height - small))
    if row.details:
        write_block(draw, (_MARGIN, end + 4), row.details, 13, FAINT, (_LABEL_WIDTH, y + height - end - 4))


def _fit(path: Path, longest: int) -> Image.Image:
    """Open a picture and bring it to a size at which it can be looked at; of a video, a strip of frames."""
    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            return _strip(image, longest)
        # A JPEG is decoded at half or a quarter of its size where that is enough.
        image.draft("RGB", (longest, longest))
        picture = image.convert("RGB")
    return _to_size(picture, longest)


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
