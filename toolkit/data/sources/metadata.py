"""A metadata file names pictures and their captions: JSON, JSON lines, CSV or parquet."""

from __future__ import annotations

import csv
import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.data.scanning.scan import Scan
from toolkit.data.sources.kept import kept_file, read_kept, stamp_of, write_kept
from toolkit.data.sources.look import look
from toolkit.data.sources.packed import PackedParquet, packed_column
from toolkit.data.sources.reading import CAPTION_COLUMNS, IMAGE_COLUMNS, SHORT_COLUMNS, Reading
from toolkit.data.sources.rows import Place, Rows, clean, distinct, shortened, stated
from toolkit.data.sources.table import to_scan

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_ENDINGS = {".json": "entry", ".jsonl": "line", ".csv": "line", ".parquet": "row"}
"""What a place in such a file is called."""
Stated = Mapping[str, Any]


@dataclass(frozen=True)
class Metadata:
    """One metadata file; paths in it are below its folder, or absolute."""

    file: Path

    def scan(self, reading: Reading) -> Scan:
        """Its pictures, sorted by name."""
        if self.file.suffix.lower() == ".parquet" and packed_column(self.file, reading):
            return PackedParquet(self.file, (self.file,)).scan(reading)
        place = Place(self.file, self.file.parent, METADATA_ENDINGS[self.file.suffix.lower()])
        keys = reading.image_columns, reading.caption_columns, reading.strict, reading.caption_ext, reading.videos
        stamp = stamp_of(self.file, *keys)
        kept = kept_file(reading.index, self.file, "rows") if reading.index else None
        before = read_kept(kept) if kept else None
        if before and before[1] == stamp:
            rows, notes = stated(before[0]), before[2]
        else:
            rows, notes = self._read(reading, place)
        table = look(rows, place, reading, before[0] if before else None)
        if kept and not (before and before[1] == stamp and before[0].equals(table)):
            write_kept(kept, table, stamp, notes)
        # what is mapped from the disk takes no memory
        mapped = read_kept(kept) if kept else None
        return to_scan(mapped[0] if mapped else table, place, reading, notes)

    def _read(self, reading: Reading, place: Place) -> tuple[pa.Table, list[str]]:
        """Its rows, sorted by name, and what is to be said about them."""
        rows, seen = Rows(), _Columns(reading, place)
        try:
            for number, values in _stated(
                self.file, {*reading.image_columns, *reading.caption_columns, *SHORT_COLUMNS}
            ):
                seen.add(number, values, rows)
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.file}: not UTF-8 (byte {error.start})") from error
        except OSError as error:
            raise ValueError(f"{self.file}: {error.strerror or error}") from error
        notes = seen.notes()
        table, twice = distinct(rows.table(), place)
        return table, [*notes, *twice]


@dataclass
class _Columns:
    """Which columns of a metadata file are read, and what is wrong with their values."""

    reading: Reading
    place: Place
    found: dict[str, None] = field(default_factory=dict)
    flaws: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    num_rows: int = 0

    def add(self, number: int, values: Stated, rows: Rows) -> None:
        """Take one row of the file."""
        self.num_rows += 1
        self.found |= dict.fromkeys(values)
        image = _first(values, self.reading.image_columns)
        name = clean(image)
        if name is None:
            given = "no picture is named" if image is None or image == "" else f"{image!r:.40} is no path"
            self.flaws.append(f"{self.place.source}, {self.place.unit} {number}: {given}")
            return
        caption = self._text(number, name, _first(values, self.reading.caption_columns))
        rows.add(self._name(name), number, caption, self._text(number, name, _first(values, SHORT_COLUMNS)))

    def notes(self) -> list[str]:
        """What is to be said about the file; ValueError if it does not hold what is needed."""
        source, reading = self.place.source, self.reading
        if not self.num_rows:
            raise ValueError(f"{source}: holds no picture")
        columns = ", ".join(map(str, self.found))
        for key, wanted in (("image_column", reading.image_column), ("caption_column", reading.caption_column)):
            if wanted and wanted not in self.found:
                raise ValueError(f"{source}: there is no column '{wanted}' ({key}); it has {columns}")
        if len(self.flaws) == self.num_rows and not set(reading.image_columns) & set(self.found):
            usual = ", ".join(IMAGE_COLUMNS)
            raise ValueError(f"{source}: no column names the pictures ({usual}); it has {columns}; set image_column")
        if reading.strict and self.flaws:
            raise ValueError("; ".join(shortened(self.flaws)))
        lines = shortened([f"{line}; left out" for line in self.flaws]) + shortened(self.remarks)
        known = {*reading.image_columns, *reading.caption_columns, *SHORT_COLUMNS}
        if unread := [str(name) for name in self.found if name not in known]:
            lines.append(f"{source}: columns that are not used: {', '.join(unread)}")
        return lines

    def _name(self, path: str) -> str:
        """One spelling for one file: `./a.jpg` and `b/../a.jpg` are `a.jpg`."""
        if os.path.isabs(path) and Path(path).is_relative_to(self.place.folder.absolute()):
            path = Path(path).relative_to(self.place.folder.absolute()).as_posix()
        return posixpath.normpath(path)

    def _text(self, number: int, image: str, value: object) -> str | None:
        if value is not None and not isinstance(value, str):
            where = f"{self.place.source}, {self.place.unit} {number}: {image}"
            self.remarks.append(f"{where}: the caption {value!r:.40} is no text; it counts as missing")
        return clean(value)


def _first(values: Stated, columns: Sequence[str]) -> Any:
    return next((values[column] for column in columns if values.get(column) is not None), None)


def _stated(file: Path, wanted: Set[str]) -> Iterator[tuple[int, Stated]]:
    """What a file says, row by row, with the number by which the user finds the row."""
    ending = file.suffix.lower()
    if ending == ".parquet":
        return _parquet(file, wanted)
    return {".json": _json, ".jsonl": _json_lines, ".csv": _csv}[ending](file)


def _json(file: Path) -> Iterator[tuple[int, Stated]]:
    try:
        # pairs, because a name that comes twice would be lost in a dict
        whole = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not JSON: {error.msg}") from error
    if isinstance(whole, _Pairs):
        for number, (name, value) in enumerate(whole, 1):
            if not isinstance(value, (str, _Pairs)) and value is not None:
                raise ValueError(
                    f"{file}: '{name}' is neither a caption nor an object like {{\"caption\": ...}}; the file is to be "
                    "an object with a path for each caption, or a list of objects"
                )
            told = dict(value) if isinstance(value, _Pairs) else {CAPTION_COLUMNS[0]: value}
            yield number, {**told, IMAGE_COLUMNS[0]: name}
    elif isinstance(whole, list):
        for number, value in enumerate(whole, 1):
            if not isinstance(value, _Pairs):
                raise ValueError(f"{file}: entry {number} is no object")
            yield number, dict(value)
    else:
        raise ValueError(f"{file}: holds neither an object nor a list")


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written."""


def _json_lines(file: Path) -> Iterator[tuple[int, Stated]]:
    with open(file, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{file}:{number}: not JSON: {error.msg}") from error
            if not isinstance(values, dict):
                raise ValueError(f"{file}:{number}: not an object")
            yield number, values


def _csv(file: Path) -> Iterator[tuple[int, Stated]]:
    with open(file, encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        try:
            for values in reader:
                if None in values:
                    count = len(reader.fieldnames or ())
                    raise ValueError(f"{file}:{reader.line_num}: more values than the {count} columns; quote commas")
                yield reader.line_num, values
        except csv.Error as error:
            raise ValueError(f"{file}:{reader.line_num}: {error}") from error


def _parquet(file: Path, wanted: Set[str]) -> Iterator[tuple[int, Stated]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            for batch in parquet.iter_batches(8192, columns=[name for name in names if name in wanted]):
                for values in batch.to_pylist():
                    number += 1
                    # the others are only named: they may be large
                    yield number, {**dict.fromkeys(names), **values}
    except pa.ArrowException as error:
        raise ValueError(f"{file}: not a parquet file that can be read: {error}") from error
