"""All samples of a run on one picture: a row per prompt, a column per step.

It is built from the files alone, so that a resumed run, or a notebook, gets the same sheet.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from toolkit.data.pictures.image import BAD_FILE
from toolkit.sampling.picture_files import PictureFile, list_pictures, read_metadata
from toolkit.sampling.sheet import PAPER, Row, draw_sheet, longest_side, open_fitted, save_sheet

__all__ = ["PAPER", "choose_steps", "contact_sheet", "describe", "write_contact_sheet"]

_log = logging.getLogger(__name__)
_MOST_COLUMNS = 12


def write_contact_sheet(folder: Path, title: str = "") -> Path | None:
    """Write contact_sheet.png (.jpg if it is very large) into the folder of the samples; None if there are none."""
    sheet = contact_sheet(folder, title)
    return None if sheet is None else save_sheet(sheet, folder)


def contact_sheet(folder: Path, title: str = "") -> Image.Image | None:
    """Return the sheet of the pictures in `folder`, or None if there are none."""
    files = list_pictures(folder)
    if not files:
        return None
    steps = choose_steps(sorted({file.step for file in files}))
    rows = _rows([file for file in files if file.step in set(steps)], longest_side(len(steps)))
    headings = [_heading(step) for step in steps if any(_heading(step) in row.pictures for row in rows)]
    return draw_sheet(rows, headings, title) if rows else None


def choose_steps(steps: list[int], most: int = _MOST_COLUMNS) -> list[int]:
    """Return at most `most` of the steps: the first, the last, and evenly many between."""
    if len(steps) <= most:
        return steps
    return [steps[round(place * (len(steps) - 1) / (most - 1))] for place in range(most)]


def describe(facts: Mapping[str, Any], keys: tuple[str, ...] = ("seed", "guidance")) -> str:
    """Return the settings in small print below the prompt."""
    parts = [f"{key} {facts[key]}" for key in keys if key in facts]
    if (strength := facts.get("network_multiplier", 1)) != 1:
        parts.append(f"strength {strength:g}")
    if facts.get("negative"):
        parts.append(f"not: {facts['negative']}")
    return ", ".join(parts)


def _heading(step: int) -> str:
    return f"step {step}"


def _rows(files: list[PictureFile], longest: int) -> list[Row]:
    """Group pictures by place in the config and by prompt: one edited between two runs gets a row of its own."""
    rows: dict[tuple[int, str], Row] = {}
    for file in files:
        try:
            facts, picture = read_metadata(file.path), open_fitted(file.path, longest)
        except BAD_FILE as error:
            # A damaged picture must not end a training run.
            _log.warning("%s is left out of the contact sheet: %s", file.path, error)
            continue
        prompt = str(facts.get("prompt", ""))
        row = rows.setdefault((file.index, prompt), Row(prompt or f"picture {file.index}", describe(facts), {}))
        row.pictures[_heading(file.step)] = picture
    return [rows[key] for key in sorted(rows)]
