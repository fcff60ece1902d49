"""Text on pictures: wrapped to a width, cut to a height, in the font that Pillow brings."""

from __future__ import annotations

from functools import cache
from typing import Any

from PIL import ImageDraw, ImageFont


@cache
def font(size: int) -> Any:
    """Return Pillow's own font; no machine lacks it."""
    return ImageFont.load_default(size)


def write_block(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, ink: str, box: tuple[int, int]
) -> int:
    """Write `text` from the upper left corner `at` into a box of width and height, and return where it ends below."""
    x, y = at
    line_height = round(size * 1.25)
    for line in fit_lines(text, size, box[0], max(box[1] // line_height, 1)):
        draw.text((x, y), line, ink, font(size))
        y += line_height
    return y


def fit_lines(text: str, size: int, width: int, most: int) -> list[str]:
    """Return `text` as at most `most` lines of `width` pixels; what does not fit is replaced by dots."""
    lines = wrap(text, size, width)
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and font(size).getlength(last + "...") > width:
        last = last[:-1]
    return [*lines[: most - 1], last.rstrip() + "..."]


def wrap(text: str, size: int, width: int) -> list[str]:
    """Break `text` between words into lines of `width` pixels; a longer word is broken anywhere."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font(size).getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font(size).getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
