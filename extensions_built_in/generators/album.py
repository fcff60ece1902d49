"""The files of what is made: their names, which of them are there, and the contact sheet.

What is named by its place has the digest of all that decides it in the name, so that other settings never replace a
picture. What is named like another picture carries the digest inside, and is made again when that differs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from extensions_built_in.generators.orders import REPEAT, Order
from toolkit.atomic import write_text
from toolkit.sampling.contact_sheet import describe
from toolkit.sampling.picture_files import read_metadata, write_animation, write_picture
from toolkit.sampling.render import Frames
from toolkit.sampling.sheet import Row, draw_sheet, longest_side, open_fitted, save_sheet
from toolkit.sampling.video_files import save_mp4

_NAME = re.compile(r"\d{5,}_\d+_(?P<digest>[0-9a-f]{12})\.(?:png|jpg|jpeg|webp)")
_MOST_ROWS, _MOST_COLUMNS = 40, 12


@dataclass(frozen=True)
class Page:
    """An order with its file."""

    order: Order
    digest: str
    path: Path


class Album:
    """The pictures in a folder."""

    def __init__(self, folder: Path, ext: str) -> None:
        self.folder, self.ext = folder, ext

    def pages(self, orders: Sequence[Order], digests: Sequence[str]) -> list[Page]:
        """Every order with its file: the one that is there, or the one that it will get."""
        there = self._there()
        found = []
        for place, (order, digest) in enumerate(zip(orders, digests, strict=True)):
            ext = "webp" if order.prompt.is_video else self.ext
            if order.stem:
                path = self.folder / f"{order.stem}.{ext}"
            else:
                name = f"{place:05d}_{order.prompt.seed}_{digest}.{ext}"
                path = there.setdefault((digest, ext), self.folder / name)
            found.append(Page(order, digest, path))
        return found

    def missing(self, pages: Sequence[Page]) -> list[Page]:
        """Those that are to be made, equal ones once. ValueError if a file of another origin is in the way."""
        wanted = {page.path: page for page in reversed(pages) if not self._is_made(page)}
        return [page for page in pages if wanted.get(page.path) is page]

    def write(self, page: Page, frames: Frames, facts: dict[str, object]) -> None:
        """Write a picture, or a video as an animated webp with an mp4 beside it; the prompt first, if it is wanted."""
        if page.order.with_prompt:
            write_text(page.path.with_suffix(".txt"), page.order.prompt.prompt)
        if len(frames) == 1:
            write_picture(frames[0], page.path, facts)
            return
        fps = page.order.prompt.fps
        save_mp4(frames, fps, page.path.with_suffix(".mp4"), facts)
        write_animation(frames, fps, page.path, facts)

    def write_sheet(self, pages: Sequence[Page], title: str) -> Path | None:
        """Write contact_sheet.png of what is there; None if that is less than two pictures."""
        pages = [page for page in pages if page.order.heading and page.order.row < _MOST_ROWS and page.path.is_file()]
        headings = list(dict.fromkeys(page.order.heading for page in pages))[:_MOST_COLUMNS]
        shown = [page for page in pages if page.order.heading in headings]
        if len({page.path for page in shown}) < 2:
            return None
        longest = longest_side(len(headings))
        rows: dict[int, list[Page]] = {}
        for page in shown:
            rows.setdefault(page.order.row, []).append(page)
        named = {heading: _named(heading, shown) if len(headings) > 1 else "" for heading in headings}
        drawn = [_row(rows[number], named, longest) for number in sorted(rows)]
        return save_sheet(draw_sheet(drawn, list(named.values()), title), self.folder)

    def _there(self) -> dict[tuple[str, str], Path]:
        """Files named by place, by digest and kind."""
        found = {}
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            if match := _NAME.fullmatch(path.name):
                found[match["digest"], path.suffix[1:]] = path
        return found

    def _is_made(self, page: Page) -> bool:
        if not page.path.is_file():
            return False
        try:
            known = read_metadata(page.path).get("digest")
        except (OSError, SyntaxError):
            # cut short by something else than this program, which writes files whole
            return False
        if known is None and page.order.stem:
            raise ValueError(
                f"output_folder: {page.path} is there, and no generator made it; name another folder, or move it away"
            )
        return known == page.digest


def _named(heading: str, pages: Sequence[Page]) -> str:
    """The heading of a column; repeats of one seed are named by that."""
    seeds = {page.order.prompt.seed for page in pages if page.order.heading == heading}
    return f"seed {seeds.pop()}" if heading.startswith(REPEAT) and len(seeds) == 1 else heading


def _row(pages: Sequence[Page], named: dict[str, str], longest: int) -> Row:
    first = pages[0].order.prompt
    seeds = {page.order.prompt.seed for page in pages}
    facts = {**asdict(first), "guidance": f"{first.guidance:g}"}
    details = describe(facts, ("seed", "guidance") if len(seeds) == 1 else ("guidance",))
    pictures: dict[str, Image.Image] = {named[page.order.heading]: open_fitted(page.path, longest) for page in pages}
    return Row(first.prompt, details, pictures)
