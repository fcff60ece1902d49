"""Which other pictures belong to a sample: found by name in other folders, or drawn from its own folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from toolkit.config.sections.dataset import IMAGE_ENDINGS
from toolkit.data.bucket import Size
from toolkit.data.lazy import Lazy
from toolkit.data.pictures.image import BrokenImage, Color, has_alpha, read_size
from toolkit.data.records import Record, Records
from toolkit.data.rng import stream
from toolkit.data.scanning.scan import visible_files

SHOWN = 5
"""So many names are listed in an error."""
SHAPE_TOLERANCE = 0.02
"""Share by which the aspect of a mask may differ from that of its picture."""


@dataclass(frozen=True, slots=True)
class References:
    """The pictures that condition one sample, and how they are offered to the model."""

    pictures: tuple[Record, ...] = ()
    like_target: bool = False
    """Cropped, scaled and mirrored as the target is; else mirrored only."""
    first_frame: bool = False
    """The first frame of the target is the only picture."""
    background: Color = (0, 0, 0)
    """Seen through transparent parts."""
    num_holed: int = 0
    """So many of the pictures, the first ones, keep their transparency: it marks what is to be painted in."""

    @property
    def backgrounds(self) -> list[Color | None]:
        """What is behind each picture; None: it keeps its transparency."""
        plain = len(self.pictures) - self.num_holed
        return [*[None] * self.num_holed, *[self.background] * plain]

    def __bool__(self) -> bool:
        return bool(self.pictures) or self.first_frame

    @property
    def follow_crop(self) -> bool:
        """Whether another crop of the target changes them."""
        return self.first_frame or self.like_target


NONE = References()


class Found(Lazy[Record]):
    """For each record of a data set one picture of a folder; it is made when it is asked for."""

    def __init__(self, folder: Path, names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> None:
        self.folder, self._names = folder, names
        self.sizes = np.array(sizes, np.int32).reshape(-1, 2)
        """[N, 2]: widths and heights."""

    def __len__(self) -> int:
        return len(self._names)

    def at(self, place: int) -> Record:
        """One of them."""
        name, (width, height) = self._names[place], self.sizes[place].tolist()
        return Record(self.folder / name, name, width, height)


class Neighbors:
    """The other pictures of a picture's sub-folder, and draws among them."""

    def __init__(self, records: Records) -> None:
        self._records = records
        rows: dict[str, list[int]] = {}
        for row in range(len(records)):
            rows.setdefault(_parent(records[row].name), []).append(row)
        self._rows = {parent: np.array(found, np.int32) for parent, found in rows.items()}

    @property
    def alone(self) -> list[str]:
        """Names of the pictures that have no other beside them."""
        return [self._records[int(found[0])].name for found in self._rows.values() if len(found) == 1]

    def draw(self, row: int, count: int, sample_id: str, purpose: str = "references") -> tuple[Record, ...]:
        """As many others as there are, up to `count`; a sample keeps those it has drawn."""
        rows = self._rows[_parent(self._records[row].name)]
        place, num_others = int(np.searchsorted(rows, row)), len(rows) - 1
        picked = stream(0, 0, sample_id, purpose).sample(range(num_others), min(count, num_others))
        return tuple(self._records[int(rows[index + (index >= place)])] for index in picked)


class Drawn(Lazy[Record]):
    """For each record of a data set another one of its sub-folder, or itself where it is alone there."""

    def __init__(self, records: Records) -> None:
        self._records, self._neighbors = records, Neighbors(records)

    def __len__(self) -> int:
        return len(self._records)

    def at(self, place: int) -> Record:
        """One of them."""
        record = self._records[place]
        return next(iter(self._neighbors.draw(place, 1, record.name, "clip image")), record)


def match(records: Records, folder: Path, key: str) -> Found:
    """For each record, the picture of the same name (the ending apart) in the folder of the config's `key`.

    A picture in a sub-folder is looked for in the same sub-folder, then at the top. Raises ValueError that names the
    records without one, or the pictures that cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"{key}: {folder} is {'not a folder' if folder.exists() else 'not there'}")
    there = dict(_pictures(folder))
    names = [_first(there, records[row].name) for row in range(len(records))]
    missing = [records[row].name for row, name in enumerate(names) if not name]
    if missing:
        raise ValueError(
            f"{key}: {folder} has no picture of the same name for {len(missing)} of {len(records)}: {_some(missing)}"
        )
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda name: _size(folder / name), names))
    broken = [str(size) for size in sizes if isinstance(size, BrokenImage)]
    if broken:
        raise ValueError(f"{key}: {'; '.join(broken[:SHOWN])}{_more(broken)}")
    return Found(folder, names, [size for size in sizes if not isinstance(size, BrokenImage)])


def shape_problem(records: Records, found: Found, key: str) -> str:
    """What to say about pictures whose shape is not that of the picture that they belong to; empty if all fit."""
    wide = records.widths.astype(np.int64) * found.sizes[:, 1]
    high = records.heights.astype(np.int64) * found.sizes[:, 0]
    odd = np.flatnonzero(np.abs(wide - high) > SHAPE_TOLERANCE * np.maximum(wide, high))
    if not len(odd):
        return ""
    first = found[int(odd[0])]
    return (
        f"{key}: {len(odd)} of {len(found)} have another shape than their picture and are stretched to it "
        f"(first: {first.name}, {first.width} x {first.height})"
    )


def check_holes(columns: Sequence[Found]) -> None:
    """Raise ValueError that names the pictures of `inpaint_path` without an alpha channel."""
    solid = [str(record.path) for column in columns for record in column if not has_alpha(record.path)]
    if solid:
        raise ValueError(
            f"{_some(solid)}: no alpha channel; the transparent part of an inpaint_path picture is what is painted in"
        )


def check_alpha(records: Records) -> None:
    """Raise ValueError that names the pictures of a data set without an alpha channel, where it is their mask."""
    each = (records[row] for row in range(len(records)))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda record: has_alpha(record.path, record.part), each))
    solid = [records[row].name for row, is_there in enumerate(found) if not is_there]
    if solid:
        raise ValueError(
            f"alpha_mask: {len(solid)} of {len(records)} pictures have no alpha channel: {_some(solid)}; "
            "save them with one, or put them into a data set of their own"
        )


def _pictures(folder: Path) -> Iterator[tuple[str, str]]:
    """Name without its ending -> name. Raises ValueError where two pictures share a name."""
    taken: dict[str, str] = {}
    for path in sorted(visible_files(folder)):
        if path.suffix.lower() in IMAGE_ENDINGS:
            name = path.relative_to(folder).as_posix()
            stem = _stem(name)
            if stem in taken:
                raise ValueError(f"{folder}: {PurePosixPath(taken[stem]).name} and {path.name} have the same name")
            taken[stem] = name
            yield stem, name


def _first(there: Mapping[str, str], name: str) -> str:
    stem = _stem(name)
    return there.get(stem) or there.get(PurePosixPath(stem).name) or ""


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _size(path: Path) -> Size | BrokenImage:
    try:
        return read_size(path)
    except BrokenImage as error:
        return error


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + _more(names)


def _more(names: Sequence[str]) -> str:
    return f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
