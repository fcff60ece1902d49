"""The newest samples of several runs on one picture: a row per prompt, a column per run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from toolkit.sampling.contact_sheet import describe
from toolkit.sampling.picture_files import PictureFile, list_pictures, read_metadata
from toolkit.sampling.sheet import Row, draw_sheet, longest_side, open_fitted


def runs_sheet(runs: Sequence[tuple[str, Path]], title: str = "") -> Image.Image | None:
    """The sheet of (heading, folder of samples) of each run; None if there is no picture.

    Shown is the newest step that all runs with pictures have, or the newest of each if there is none.
    """
    found = {heading: files for heading, folder in runs if (files := list_pictures(folder))}
    if not found:
        return None
    common = set.intersection(*({file.step for file in files} for files in found.values()))
    rows: dict[tuple[int, str], Row] = {}
    headings = []
    for heading, files in found.items():
        step = max(common or {file.step for file in files})
        shown = heading if common else f"{heading} (step {step})"
        headings.append(shown)
        for file in _of_step(files, step):
            facts = read_metadata(file.path)
            prompt = str(facts.get("prompt", ""))
            row = rows.setdefault((file.index, prompt), Row(prompt or f"picture {file.index}", describe(facts), {}))
            row.pictures[shown] = open_fitted(file.path, longest_side(len(found)))
    used = f"step {max(common)}" if common else ""
    return draw_sheet([rows[key] for key in sorted(rows)], headings, ", ".join(part for part in (title, used) if part))


def _of_step(files: Sequence[PictureFile], step: int) -> list[PictureFile]:
    """The pictures of a step; of one that was made twice, the newer."""
    newest = {file.index: file for file in sorted(files, key=lambda file: file.time_ms) if file.step == step}
    return [newest[index] for index in sorted(newest)]
