"""Every picture of a data set once, and what one look into its file tells: its kind, its hash, whether it is whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from toolkit.data.inspect.facts import Picture
from toolkit.data.inspect.hashes import perceptual_hash
from toolkit.data.items import DatasetItems, Items
from toolkit.data.pictures.image import (
    BAD_FILE,
    ENDINGS,
    FORMATS,
    ORIENTATION,
    BrokenImage,
    format_of,
    open_image,
    reason_of,
)
from toolkit.data.pictures.part import opened
from toolkit.data.records import Record

T = TypeVar("T")
R = TypeVar("R")
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""(title, total) -> shows how far a stage is; the block calls what it gets with the number of pictures done."""
SEEN_AT = (64, 64)
"""The hash looks at 32 x 32 cells; JPEGs may be decoded at a fraction of their size for it."""
AT_ONCE = 16


@dataclass(frozen=True)
class Look:
    """What a file tells; a broken one only why."""

    notes: tuple[str, ...] = ()
    hash: int = 0
    problem: str = ""
    length: int = 0
    """Bytes of the file."""
    is_video: bool = False


class Gallery:
    """The pictures and videos of some data sets, each file once, however many samples are made of it."""

    def __init__(self, items: Items, places: Sequence[Path]) -> None:
        """`places`: the folder or file of each data set."""
        self.datasets: list[DatasetItems] = items.datasets
        self.labels = ["" if len(set(places)) == 1 else f"{place}/" for place in places]
        """What stands before the names of each data set."""
        real = [os.path.realpath(place) for place in places]
        seen: set[tuple[str, str]] = set()
        self._rows: list[tuple[int, int]] = []
        for number, dataset in enumerate(self.datasets):
            rows: Iterable[int] = range(len(dataset.records))
            if real.count(real[number]) > 1:
                keys = [(real[number], dataset.records[row].name) for row in rows]
                rows = [row for row in rows if keys[row] not in seen]
                seen.update(keys)
            self._rows += [(number, row) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Record]:
        return (self.record(index) for index in range(len(self)))

    def shapes(self) -> np.ndarray:
        """int64 [N, 2]: width and height of every picture."""
        tables = [np.stack([one.records.widths, one.records.heights], axis=1) for one in self.datasets]
        starts = np.cumsum([0, *map(len, tables)])
        places = [starts[number] + row for number, row in self._rows]
        return np.concatenate(tables).astype(np.int64)[places]

    def record(self, index: int) -> Record:
        """The record of a picture."""
        number, row = self._rows[index]
        return self.datasets[number].records[row]

    def dataset(self, index: int) -> int:
        """Number of the data set that it is found in first."""
        return self._rows[index][0]

    def name(self, index: int) -> str:
        """What it is called in the facts."""
        number, row = self._rows[index]
        return self.name_in(number, row)

    def name_in(self, number: int, row: int) -> str:
        """What a row of a data set is called in the facts."""
        return self.labels[number] + self.datasets[number].records[row].name

    def picture(self, index: int) -> Picture:
        """It as a fact."""
        return self.picture_in(*self._rows[index])

    def picture_in(self, number: int, row: int) -> Picture:
        """A row of a data set as a fact."""
        record = self.datasets[number].records[row]
        name, is_video = self.labels[number] + record.name, record.clip is not None
        return Picture(name, str(record.path), record.width, record.height, is_video, record.part)


def look_at_all(gallery: Gallery, with_pixels: bool, bar: Bar) -> list[Look]:
    """Look into every file, several at once."""
    title = "looking at pictures" if with_pixels else "reading headers"
    with bar(title, len(gallery)) as advance:
        found = []
        for seen in in_threads(lambda record: look(record, with_pixels), gallery):
            found.append(seen)
            advance(1)
    return found


def in_threads(function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
    """The results in order, some tasks ahead: Pillow decodes and scales without the interpreter's lock."""
    num_threads = min(16, 2 * (os.cpu_count() or 1))
    coming = iter(tasks)
    # handing over a task takes longer than reading a header, so a thread gets several at once
    shares = iter(lambda: list(islice(coming, AT_ONCE)), [])
    with ThreadPoolExecutor(num_threads) as pool:
        while ahead := list(islice(shares, 4 * num_threads)):
            for done in pool.map(lambda share: [function(task) for task in share], ahead):
                yield from done


def quiet(title: str, total: int) -> AbstractContextManager[Callable[[int], object]]:
    """A bar that shows nothing."""
    return nullcontext(lambda count: None)


def look(record: Record, with_pixels: bool) -> Look:
    """What one file tells."""
    try:
        notes = () if record.clip else _notes(record)
        length = record.part[1] if record.part else record.path.stat().st_size
        seen = perceptual_hash(picture_of(record)) if with_pixels else 0
        return Look(notes, seen, length=length, is_video=record.clip is not None)
    except BrokenImage as error:
        return Look(problem=error.reason, is_video=record.clip is not None)
    except OSError as error:
        return Look(problem=reason_of(record.path, error), is_video=record.clip is not None)


def picture_of(record: Record, at_least: tuple[int, int] = SEEN_AT) -> Image.Image:
    """A picture, or the first frame of a video, as upright RGB, decoded no larger than needed where that is quick."""
    size = record.width, record.height
    if record.clip is None:
        return open_image(record.path, at_least=at_least, expected=size, part=record.part)
    from toolkit.data.pictures.video import read_frames

    return next(read_frames(record.path, record.clip, (0.0,), expected=size, part=record.part))


def _notes(record: Record) -> tuple[str, ...]:
    """What the header of a picture says that is worth knowing."""
    try:
        with opened(record.path, record.part) as file, Image.open(file, formats=FORMATS) as image:
            turned = Image.Image.getexif(image).get(ORIENTATION, 1) != 1 or image.size != (record.width, record.height)
            kind, suffix = format_of(image), Path(record.name).suffix.lower()
            found = {
                "animated: the first frame is trained": getattr(image, "is_animated", False) and kind != "JPEG",
                "turned upright by EXIF": turned,
                "16 bits per channel: scaled to 8": image.mode.startswith("I") or ";16" in str(image.tile),
                "CMYK: turned into RGB": image.mode == "CMYK",
                "transparent: composited on the background": image.has_transparency_data,
                "gray": image.mode in ("1", "L", "LA") or image.mode.startswith("I"),
                "palette": image.mode in ("P", "PA"),
                f"the name says {suffix}, the content is {kind}": bool(suffix) and suffix not in ENDINGS[kind],
            }
    except BAD_FILE as error:
        raise BrokenImage(record.path, reason_of(record.path, error)) from error
    return tuple(text for text, is_so in found.items() if is_so)
