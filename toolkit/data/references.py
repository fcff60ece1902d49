"""Which reference pictures belong to a sample: found by name in other folders, or drawn from its own folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from toolkit.config.sections.dataset import IMAGE_ENDINGS
from toolkit.data.image import BrokenImage, Color, has_alpha, read_size
from toolkit.data.rng import stream
from toolkit.data.scan import Record, visible_files

SHOWN = 5
"""So many names are listed in an error."""


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


def match(records: Sequence[Record], folders: Sequence[Path], key: str) -> list[tuple[Record, ...]]:
    """For each record, the picture of the same name (the ending apart) in every folder of the config's `key`.

    A picture in a sub-folder is looked for in the same sub-folder, then at the top. Raises ValueError that names the
    records without one, or the pictures that cannot be read.
    """
    columns = [_column(records, folder, key) for folder in folders]
    return [tuple(column[index] for column in columns) for index in range(len(records))]


def check_holes(pictures: Sequence[tuple[Record, ...]]) -> None:
    """Raise ValueError that names the pictures without an alpha channel."""
    solid = [str(record.path) for row in pictures for record in row if not has_alpha(record.path)]
    if solid:
        more = f" and {len(solid) - SHOWN} more" if len(solid) > SHOWN else ""
        raise ValueError(
            f"{', '.join(solid[:SHOWN])}{more}: no alpha channel; the transparent part of an inpaint_path picture "
            "is what is painted in"
        )


def draw(records: Sequence[Record], record: Record, count: int, sample_id: str) -> tuple[Record, ...]:
    """Other pictures of the same sub-folder, as many as there are up to `count`; a sample keeps those it has drawn."""
    parent = PurePosixPath(record.name).parent
    others = [other for other in records if other is not record and PurePosixPath(other.name).parent == parent]
    return tuple(stream(0, 0, sample_id, "references").sample(others, min(count, len(others))))


def _column(records: Sequence[Record], folder: Path, key: str) -> list[Record]:
    if not folder.is_dir():
        raise ValueError(f"{key}: {folder} is {'not a folder' if folder.exists() else 'not there'}")
    found = dict(_pictures(folder))
    paths = [_first(found, record.name) for record in records]
    missing = [record.name for record, path in zip(records, paths, strict=True) if path is None]
    if missing:
        more = f", and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise ValueError(
            f"{key}: {folder} has no picture of the same name for {len(missing)} of {len(records)}: "
            f"{', '.join(missing[:SHOWN])}{more}"
        )
    with ThreadPoolExecutor(8) as pool:
        column = list(pool.map(lambda path: _record(folder, path), [path for path in paths if path is not None]))
    broken = [str(entry) for entry in column if isinstance(entry, BrokenImage)]
    if broken:
        raise ValueError("; ".join(broken))
    return [entry for entry in column if isinstance(entry, Record)]


def _pictures(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name without its ending -> path. Raises ValueError where two pictures share a name."""
    taken: dict[str, Path] = {}
    for path in sorted(visible_files(folder)):
        if path.suffix.lower() in IMAGE_ENDINGS:
            stem = _stem(path.relative_to(folder).as_posix())
            if stem in taken:
                raise ValueError(f"{folder}: {taken[stem].name} and {path.name} have the same name")
            taken[stem] = path
            yield stem, path


def _first(found: Mapping[str, Path], name: str) -> Path | None:
    stem = _stem(name)
    return found.get(stem) or found.get(PurePosixPath(stem).name)


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _record(folder: Path, path: Path) -> Record | BrokenImage:
    try:
        return Record(path, path.relative_to(folder).as_posix(), *read_size(path))
    except BrokenImage as error:
        return error
