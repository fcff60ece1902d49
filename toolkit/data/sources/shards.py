"""Webdataset shards: uncompressed tar files whose pictures are read where they lie, and whose indices are kept."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from toolkit.config.sections.dataset import ANIMATION_ENDINGS, IMAGE_ENDINGS, VIDEO_ENDINGS
from toolkit.data.records import Part
from toolkit.data.scanning.scan import FROM_FILE_NAME, Scan
from toolkit.data.sources.kept import kept_file, read_kept, stamp_of, write_kept
from toolkit.data.sources.look import look
from toolkit.data.sources.reading import SHORT_COLUMNS, Reading
from toolkit.data.sources.rows import Place, Rows, by_name, clean, shortened, stated
from toolkit.data.sources.table import to_scan

if TYPE_CHECKING:
    import pyarrow as pa

CAPTION_ENDINGS = (".txt", ".caption")
DESCRIPTION_ENDING = ".json"


@dataclass(frozen=True)
class Shards:
    """Tar files that make one data set."""

    source: Path
    """What the user named: a file, a pattern or a folder."""
    files: tuple[Path, ...]
    is_named: bool = True
    """Names begin with that of the tar."""

    def scan(self, reading: Reading) -> Scan:
        """The pictures of all of them, sorted by name."""
        import pyarrow as pa

        folder = Path(os.path.commonpath([file.parent for file in self.files]))
        prefixes = [f"{file.relative_to(folder).as_posix()}/" if self.is_named else "" for file in self.files]
        with ThreadPoolExecutor(reading.num_workers) as pool:
            shards = list(pool.map(partial(_shard, reading), self.files, prefixes))
        tables = [
            table.set_column(
                table.schema.get_field_index("archive"), "archive", pa.array([number] * len(table), "int32")
            )
            for number, (table, _) in enumerate(shards)
        ]
        flaws = [flaw for _, found in shards for flaw in found]
        if reading.strict and flaws:
            raise ValueError("; ".join(shortened(flaws)))
        seen = by_name(pa.concat_tables(tables))
        if not len(seen):
            raise ValueError("; ".join([f"{self.source}: no picture found in {len(self.files)} tar files", *flaws]))
        place = Place(self.source, folder, archives=self.files)
        return to_scan(seen, place, reading, shortened(flaws))


@dataclass
class Sample:
    """The members of a tar that have the same name up to the first dot."""

    pictures: dict[str, Part] = field(default_factory=dict)
    """Ending -> where it lies."""
    texts: dict[str, Part] = field(default_factory=dict)


def _shard(reading: Reading, file: Path, prefix: str) -> tuple[pa.Table, list[str]]:
    """The pictures of one tar, with what is wrong with the tar: from its index, if that is of the same file."""
    import pyarrow.compute as pc

    stamp = stamp_of(file, prefix, reading.caption_ext, reading.videos, reading.caption_columns)
    kept = kept_file(reading.index, file, "tar") if reading.index else None
    # one thread for each tar, which is read from its start to its end
    place, alone = Place(file, file.parent, archives=(file,)), replace(reading, num_workers=1)
    if kept and (found := read_kept(kept)) and found[1] == stamp:
        table, _, flaws = found
        # what could not be read then may be readable now
        is_whole = pc.all(pc.equal(table["broken"], "")).as_py()
        return table if is_whole is not False else look(stated(table), place, alone, table), flaws
    rows, flaws = _rows(file, prefix, reading)
    table = look(rows, place, alone)
    if kept:
        write_kept(kept, table, stamp, flaws)
    return table, flaws


def _rows(file: Path, prefix: str, reading: Reading) -> tuple[pa.Table, list[str]]:
    samples, flaws = _samples(file, reading)
    rows = Rows()
    with open(file, "rb") as archive:
        for key, sample in samples.items():
            if not sample.pictures:
                continue
            # 000.jpg before 000.mask.png
            ending, *others = sorted(sample.pictures, key=lambda name: (name.count("."), name))
            if others:
                flaws.append(f"{file}/{key}: has {1 + len(others)} pictures; {ending} is taken")
            texts = _texts(archive, sample, reading, f"{file}/{key}", flaws)
            rows.add(f"{prefix}{key}{ending}", 0, *texts, archive=0, part=sample.pictures[ending])
    return rows.table(), flaws


def _samples(file: Path, reading: Reading) -> tuple[dict[str, Sample], list[str]]:
    """The members of a tar by their key; of two with one name the later counts, as it does when a tar is unpacked."""
    pictures = IMAGE_ENDINGS | ANIMATION_ENDINGS | (VIDEO_ENDINGS if reading.videos else frozenset())
    samples: dict[str, Sample] = {}
    flaws: list[str] = []
    size = file.stat().st_size
    for member in _members(file, flaws):
        # bytes that are not UTF-8 are spelled out
        path = PurePosixPath(member.name.encode(errors="surrogateescape").decode(errors="backslashreplace"))
        if not member.isreg() or path.name.startswith("."):
            continue
        if member.issparse():
            flaws.append(f"{file}/{path}: is stored as a sparse file; left out")
            continue
        if member.offset_data + member.size > size:
            flaws.append(f"{file}/{path}: the tar ends before this file does; left out")
            continue
        stem, dot, rest = path.name.partition(".")
        sample = samples.setdefault(str(path.with_name(stem)), Sample())
        part = (member.offset_data, member.size)
        if path.suffix.lower() in pictures:
            sample.pictures[dot + rest] = part
        else:
            sample.texts[(dot + rest).lower()] = part
    return samples, flaws


def _members(file: Path, flaws: list[str]) -> Iterator[tarfile.TarInfo]:
    """What a tar holds, as far as it is whole."""
    cut = "is cut off; the files in it that are whole are used"
    is_tar = False
    try:
        with tarfile.open(file, "r:") as archive:
            is_tar = True
            for member in archive:
                yield member
                # tarfile would keep them all
                archive.members.clear()  # type: ignore[attr-defined]
            end = archive.offset
        with open(file, "rb") as raw:
            raw.seek(end)
            # a whole tar ends with blocks of zeros
            if raw.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                flaws.append(f"{file}: {cut}")
    except tarfile.ReadError as error:
        flaws.append(f"{file}: {cut}" if is_tar else f"{file}: not an uncompressed tar file ({error})")
    except OSError as error:
        flaws.append(f"{file}: {error.strerror or error}")


def _texts(
    archive: BinaryIO, sample: Sample, reading: Reading, where: str, flaws: list[str]
) -> tuple[str | None, str | None]:
    """Caption and short caption: from a text file, then from a description."""
    if reading.caption_ext == FROM_FILE_NAME:
        return None, None
    own = f".{reading.caption_ext.lstrip('.')}".lower()
    caption = short = None
    for ending in dict.fromkeys((own, *CAPTION_ENDINGS)):
        if caption is None and ending != DESCRIPTION_ENDING and ending in sample.texts:
            caption = clean(_text(archive, sample.texts[ending], where + ending, flaws))
    if DESCRIPTION_ENDING in sample.texts:
        name = where + DESCRIPTION_ENDING
        try:
            told = json.loads(_text(archive, sample.texts[DESCRIPTION_ENDING], name, flaws) or "{}")
        except json.JSONDecodeError as error:
            flaws.append(f"{name}: not JSON: {error.msg}; not read")
            told = {}
        values = told if isinstance(told, dict) else {}
        described = (clean(values.get(column)) for column in reading.caption_columns)
        caption = caption or next((text for text in described if text), None)
        short = next((text for column in SHORT_COLUMNS if (text := clean(values.get(column)))), None)
    return caption, short


def _text(archive: BinaryIO, part: Part, name: str, flaws: list[str]) -> str:
    archive.seek(part[0])
    try:
        return archive.read(part[1]).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        flaws.append(f"{name}: not UTF-8 (byte {error.start}); not read")
        return ""
