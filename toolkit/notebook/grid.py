"""Pictures side by side with their captions below: what `Dataset.show` shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from toolkit.sampling.lettering import write_block

PAPER, INK, FAINT = "#fafaf8", "#1f2328", "#7b8087"
GAP, TEXT_SIZE, TEXT_HEIGHT = 12, 12, 48


def draw_grid(pictures: Sequence[tuple[Image.Image, str, str]], cell: int = 192, columns: int = 6) -> Image.Image:
    """One picture of (picture, caption, note) entries, each fitted into a square of `cell` pixels."""
    columns = max(1, min(columns, len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    step_x, step_y = cell + GAP, cell + TEXT_HEIGHT + GAP
    sheet = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (picture, caption, note) in enumerate(pictures):
        left, top = GAP + number % columns * step_x, GAP + number // columns * step_y
        # small pictures are enlarged by whole steps, so that their pixels stay visible
        factor = max(1, cell // max(picture.size))
        shown = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
        shown.thumbnail((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(shown, (left + (cell - shown.width) // 2, top + (cell - shown.height) // 2))
        end = write_block(draw, (left, top + cell + 2), note, TEXT_SIZE, FAINT, (cell, TEXT_SIZE + 4))
        write_block(draw, (left, end), caption or "(no caption)", TEXT_SIZE, INK, (cell, TEXT_HEIGHT - TEXT_SIZE - 4))
    return sheet
