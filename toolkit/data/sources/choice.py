"""Which kind of source a path names; the entrance to this package."""

import glob
import os
import re
from itertools import product
from pathlib import Path

from toolkit.config.sections.dataset import ANIMATION_ENDINGS, IMAGE_ENDINGS, VIDEO_ENDINGS
from toolkit.data.scanning.scan import Scan, scan
from toolkit.data.sources.metadata import METADATA_ENDINGS, Metadata
from toolkit.data.sources.packed import SavedDataset, parquet_split
from toolkit.data.sources.reading import Reading, Source
from toolkit.data.sources.shards import Shards

MEDIA = IMAGE_ENDINGS | ANIMATION_ENDINGS | VIDEO_ENDINGS
COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")
HUGGINGFACE_NAMES = [f"metadata{ending}" for ending in (".jsonl", ".csv", ".parquet")]
BRACES = re.compile(r"\{([^{}]+)\}")


def read_source(path: Path | str, reading: Reading) -> Scan:
    """The records of whatever `path` names: a folder, a metadata file, tar shards, a Hugging Face data set."""
    source = open_source(path)
    if source is not None:
        return source.scan(reading)
    found = scan(
        path,
        reading.caption_ext,
        reading.strict,
        reading.num_workers,
        videos=reading.videos,
        without=reading.without,
        index=reading.index,
    )
    metadata = next((file for name in HUGGINGFACE_NAMES if (file := Path(path, name)).is_file()), None)
    first = range(min(len(found.records), 1000))
    if metadata is None or any(found.records[row].caption is not None for row in first):
        return found
    hint = f"{path}: the captions in {metadata.name} are read if the data set names that file: {metadata}"
    return Scan(found.records, [*found.problems, hint])


def open_source(path: Path | str) -> Source | None:
    """The source that a path names, None for a plain folder; raises ValueError if there is no such thing."""
    path = Path(path).expanduser()
    if path.is_dir():
        return _folder_source(path)
    if path.name.lower().endswith(COMPRESSED):
        raise ValueError(
            f"{path}: is compressed, but pictures are read where they lie in the tar; unpack the compression "
            "(gunzip, unzstd, ...) or the tar, and name the result"
        )
    if path.is_file():
        if path.suffix.lower() == ".tar":
            return Shards(path, (path,))
        if path.suffix.lower() in METADATA_ENDINGS:
            return Metadata(path)
        known = ", ".join(sorted([*METADATA_ENDINGS, ".tar"]))
        raise ValueError(f"{path}: neither a folder nor a file that names or holds pictures ({known})")
    if glob.has_magic(str(path)) or BRACES.search(str(path)):
        return Shards(path, _matches(path))
    raise ValueError(f"{path}: no such file or folder")


def _folder_source(folder: Path) -> Source | None:
    if (folder / "dataset_dict.json").is_file() or (
        (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    ):
        return SavedDataset(folder)
    if tars := _only(folder, ".tar"):
        return Shards(folder, tars)
    # a clone of a data set of the Hub has its files in data/
    for place in (folder, folder / "data"):
        if place.is_dir() and (files := _only(place, ".parquet")):
            return parquet_split(folder, files)
    return None


def _only(folder: Path, ending: str) -> tuple[Path, ...]:
    """The files with an ending, unless there are sub-folders, pictures or videos beside them."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            suffix = Path(entry.name).suffix.lower()
            if suffix in MEDIA or entry.is_dir():
                return ()
            if suffix == ending:
                found.append(Path(entry.path))
    return tuple(sorted(found))


def _matches(pattern: Path) -> tuple[Path, ...]:
    """The files of a pattern: {000..012} and {a,b} name each one, * and ? whatever is there."""
    names = _expand(str(pattern))
    found = sorted({match for name in names for match in (glob.glob(name) if glob.has_magic(name) else [name])})
    missing = [name for name in found if not Path(name).is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(f"{pattern}: there is no file {', '.join(missing[:3])}{more}")
    if not found:
        raise ValueError(f"{pattern}: no file matches")
    other = [name for name in found if not name.lower().endswith(".tar")]
    if other:
        raise ValueError(f"{pattern}: {other[0]} is no .tar file")
    return tuple(map(Path, found))


def _expand(pattern: str) -> list[str]:
    """A name with braces as all the names that are meant."""
    parts = BRACES.split(pattern)
    choices = [[part] if at % 2 == 0 else _choices(part) for at, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*choices)]


def _choices(inside: str) -> list[str]:
    if match := re.fullmatch(r"(\d+)\.\.(\d+)", inside):
        begin, end = match.groups()
        return [str(number).zfill(len(begin)) for number in range(int(begin), int(end) + 1)]
    return inside.split(",")
