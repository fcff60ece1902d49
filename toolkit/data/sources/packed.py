"""Pictures that lie inside parquet files or a Hugging Face data set are unpacked once into tar shards of the cache."""

from __future__ import annotations

import io
import json
import re
import secrets
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from toolkit.atomic import atomic_path
from toolkit.config.sections.dataset import ANIMATION_ENDINGS, IMAGE_ENDINGS
from toolkit.data.scanning.scan import FROM_FILE_NAME, Scan
from toolkit.data.sources.reading import SHORT_COLUMNS, Reading
from toolkit.data.sources.shards import Shards

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_BYTES = 256 << 20
"""A kill loses at most the shard that is being written."""
BATCH = 64
"""So many pictures are in memory at a time."""
SPLIT = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}\.parquet")
PACKED_FORMAT = 1
INSTALL = 'pip install "aitk[huggingface-datasets]"'


class Columns(NamedTuple):
    """Which columns are read."""

    image: str
    caption: str | None = None
    short: str | None = None

    @property
    def names(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(name for name in self if name))


Batches = Callable[[int], "Iterator[pa.Table | pa.RecordBatch]"]
"""Gives the rows from a number on."""


@dataclass(frozen=True)
class PackedParquet:
    """Parquet files with a column of pictures."""

    source: Path
    files: tuple[Path, ...]

    def scan(self, reading: Reading) -> Scan:
        """The pictures, in the order of their rows."""
        import pyarrow as pa
        import pyarrow.dataset as ds

        try:
            files = ds.dataset([str(file) for file in self.files], format="parquet")
            columns, total = choose(self.source, files.schema, reading), files.count_rows()
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{self.source}: not parquet files that can be read: {error}") from error

        def batches(first: int) -> Iterator[pa.RecordBatch]:
            done = 0
            for batch in files.to_batches(columns=columns.names, batch_size=BATCH, batch_readahead=1):
                rows = batch.slice(max(0, first - done))
                done += len(batch)
                if len(rows):
                    yield rows

        stats = [(file.name, file.stat()) for file in self.files]
        stamp = json.dumps([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
        return _unpacked(self.source, stamp, columns, total, batches, reading)


@dataclass(frozen=True)
class SavedDataset:
    """A folder that `save_to_disk` of the library `datasets` has written; of several splits `train` is read."""

    folder: Path

    def scan(self, reading: Reading) -> Scan:
        """The pictures, in the order of their rows."""
        folder = _split_of(self.folder)
        loaded = _library(folder).load_from_disk(str(folder))
        columns = choose(folder, loaded.features.arrow_schema, reading)
        chosen = loaded.select_columns(columns.names).with_format("arrow")

        def batches(first: int) -> Iterator[pa.Table]:
            yield from chosen.select(range(first, len(chosen))).iter(BATCH)

        told = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        sizes = [(part["filename"], (folder / part["filename"]).stat().st_size) for part in told["_data_files"]]
        return _unpacked(folder, json.dumps([told["_fingerprint"], sizes]), columns, len(chosen), batches, reading)


def packed_column(file: Path, reading: Reading) -> str | None:
    """The column of a parquet file that holds pictures themselves, if there is one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _image_column(pq.read_schema(file), reading)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{file}: not a parquet file that can be read: {error}") from error


def choose(source: Path, schema: pa.Schema, reading: Reading) -> Columns:
    """The columns of the picture and its captions, as far as there are such."""
    import pyarrow.types as kinds

    image = _image_column(schema, reading)
    if image is None:
        wanted = f"'{reading.image_column}' holds no pictures" if reading.image_column else "no column holds pictures"
        raise ValueError(f"{source}: {wanted}; it has {', '.join(schema.names)}")
    texts = [
        name for name in schema.names if kinds.is_string(kind := schema.field(name).type) or kinds.is_large_string(kind)
    ]
    if reading.caption_column and reading.caption_column not in texts:
        what = "holds no text" if reading.caption_column in schema.names else "is not there"
        raise ValueError(
            f"{source}: column '{reading.caption_column}' (caption_column) {what}; texts: {', '.join(texts)}"
        )
    caption = next((name for name in reading.caption_columns if name in texts), None)
    return Columns(image, caption, next((name for name in SHORT_COLUMNS if name in texts), None))


def parquet_split(source: Path, files: Sequence[Path]) -> PackedParquet:
    """The files of the split `train`, where their names tell of splits."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        match = SPLIT.fullmatch(file.name)
        splits.setdefault(match["split"] if match else "", []).append(file)
    if len(splits) > 1 and "train" not in splits:
        raise ValueError(f"{source}: none of its splits is 'train' ({', '.join(sorted(splits))}); name a file")
    return PackedParquet(source, tuple(splits.get("train", files)))


def _image_column(schema: pa.Schema, reading: Reading) -> str | None:
    import pyarrow.types as kinds

    def is_picture(name: str) -> bool:
        kind = schema.field(name).type
        return bool(kinds.is_struct(kind)) and kind.get_field_index("bytes") >= 0

    packed = [name for name in schema.names if is_picture(name)]
    if reading.image_column:
        return reading.image_column if reading.image_column in packed else None
    return next((name for name in reading.image_columns if name in packed), packed[0] if packed else None)


def _unpacked(source: Path, stamp: str, columns: Columns, total: int, batches: Batches, reading: Reading) -> Scan:
    """Unpack what is not unpacked yet, and read it."""
    key = blake2b(json.dumps([PACKED_FORMAT, stamp, columns]).encode(), digest_size=16).hexdigest()
    folder = (reading.cache or Path.home() / ".cache" / "aitk") / "unpacked" / key
    files = _finished(folder)
    done = _next_row(files)
    if done < total:
        try:
            _unpack(folder, columns, done, batches)
        except OSError as error:
            raise ValueError(f"{source}: cannot be unpacked into {folder}: {error.strerror or error}") from error
        files = _finished(folder)
    if not total:
        raise ValueError(f"{source}: holds no picture")
    # the captions are in the shards under the usual name
    by_name = reading.caption_ext if reading.caption_ext == FROM_FILE_NAME else ".txt"
    return Shards(source, tuple(files), is_named=False).scan(replace(reading, caption_ext=by_name, caption_column=None))


def _finished(folder: Path) -> list[Path]:
    """The shards from the first row on without a gap."""
    files: list[Path] = []
    for file in sorted(folder.glob("[0-9]*-[0-9]*.tar")):
        if int(file.stem.partition("-")[0]) == _next_row(files):
            files.append(file)
    return files


def _next_row(files: Sequence[Path]) -> int:
    return int(files[-1].stem.partition("-")[2]) + 1 if files else 0


def _unpack(folder: Path, columns: Columns, first: int, batches: Batches) -> None:
    """Write the rows from `first` on as shards that are named by their first and last row."""
    rows = ((first + at, row) for at, row in enumerate(row for batch in batches(first) for row in batch.to_pylist()))
    coming = next(rows, None)
    while coming is not None:
        begin = coming[0]
        # several processes may write the same rows
        shard = folder / f"{begin:09d}.{secrets.token_hex(6)}.partial"
        last = begin
        with atomic_path(shard) as temporary, tarfile.open(temporary, "w") as archive:
            while coming is not None and archive.offset < SHARD_BYTES:
                last = coming[0]
                _add(archive, last, coming[1], columns)
                coming = next(rows, None)
        # named by its rows, which are known now
        shard.replace(folder / f"{begin:09d}-{last:09d}.tar")


def _add(archive: tarfile.TarFile, number: int, row: dict[str, Any], columns: Columns) -> None:
    picture = row[columns.image] or {}
    content, path = picture.get("bytes"), picture.get("path")
    if content is None and path and Path(path).is_file():
        content = Path(path).read_bytes()
    content = content or b""
    # up to the first dot is the name of a sample
    stem = PurePosixPath(path or "").stem.replace(".", "_").lstrip("_")
    name = f"{number:09d}/{stem}" if stem else f"{number:09d}"
    _add_file(archive, name + _ending(path, content), content)
    texts = {"caption": columns.caption, "caption_short": columns.short}
    _add_file(
        archive, f"{name}.json", json.dumps({key: row[column] for key, column in texts.items() if column}).encode()
    )


def _add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def _ending(path: str | None, content: bytes) -> str:
    """What the picture's name says, or its content."""
    ending = PurePosixPath(path or "").suffix.lower()
    if ending in IMAGE_ENDINGS | ANIMATION_ENDINGS:
        return ending
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            kind = f".{(image.format or '').lower()}"
    except (OSError, ValueError, SyntaxError):
        kind = ""
    return kind if kind in IMAGE_ENDINGS | ANIMATION_ENDINGS else ".png"


def _split_of(folder: Path) -> Path:
    """The folder itself, or that of its split `train`."""
    names = folder / "dataset_dict.json"
    if not names.is_file():
        return folder
    splits = json.loads(names.read_text(encoding="utf-8"))["splits"]
    if "train" not in splits and len(splits) > 1:
        raise ValueError(f"{folder}: none of its splits is 'train' ({', '.join(splits)}); name the folder of one")
    return folder / ("train" if "train" in splits else splits[0])


def _library(folder: Path) -> Any:
    """The library `datasets`, for which a folder of that name can be taken."""
    library: Any
    try:
        library = import_module("datasets")
    except ImportError:
        library = None
    if not hasattr(library, "load_from_disk"):
        raise ValueError(f"{folder}: a data set of the library Hugging Face datasets, which is missing: {INSTALL}")
    return library
