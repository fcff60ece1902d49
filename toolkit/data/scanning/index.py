"""What is known of the files of one folder, in one mapped Arrow file; a rescan reads only what changed."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.atomic import atomic_path
from toolkit.data.cache.tidy import tidy, writing
from toolkit.data.scanning.waiting import Threads
from toolkit.data.scanning.walk import Walk
from toolkit.data.workers import Workers

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "aitk-index-1"
AT_ONCE = 256
"""So many files are read by one thread in one go."""
JUDGED = 8
APART_FROM = 100_000
"""So many files are worth processes of their own, on a disk that answers fast."""
UNSURE = -2
"""The stamp of a file that could not be read this time and may be the next: no file has it."""
STAMPS = ("bytes", "mtime_ns", "caption_bytes", "caption_mtime_ns")
Read = Callable[[str], dict[str, Any]]
"""What the columns of a picture, or of its caption, say of the picture of this name; without a stamp, or UNSURE."""


@dataclass(frozen=True)
class Index:
    """The files of a folder, sorted by name, in columns (`schema`)."""

    table: pa.Table
    token: str
    """Another one for every table that was ever made."""
    kept: np.ndarray | None = None
    """The row of each file in the table before, -1 where its content is another; None: they are the same."""

    def numbers(self, column: str) -> np.ndarray:
        """A column of numbers, in the mapped file."""
        return np.asarray(self.table[column].chunk(0).to_numpy())


def index_path(index: Path, folder: Path, options: object) -> Path:
    """Where in the folder `index` the index of a data set is that is read with some options (plain JSON values)."""
    text = json.dumps([os.path.realpath(folder), options], sort_keys=True)
    digest = hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()
    return index / f"{digest}.arrow"


def load(path: Path, notices: list[str]) -> Index | None:
    """The index in a file, mapped; None if there is none that can be read."""
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        said = json.loads((table.schema.metadata or {}).get(b"aitk", b"{}"))
        if said.get("format") != FORMAT or table.schema.names != schema().names or table["name"].num_chunks != 1:
            notices.append(f"{path}: is of another version; the folder is read anew")
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        notices.append(f"{path}: cannot be read; the folder is read anew")
        return None
    return Index(table, said["token"])


def save(index: Index, path: Path, notices: list[str]) -> Index:
    """Write an index whole or not at all, and take its columns from the file from then on."""
    import pyarrow as pa

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tidy(path.parent)
        columns = index.table.schema
        with writing(path.parent), atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), columns) as writer:
            writer.write_table(index.table)
    except OSError as error:
        notices.append(f"{path}: {error.strerror or error}; the next run reads the folder anew")
        return index
    found = load(path, [])
    # another process may have written its own since
    return Index(found.table, found.token, index.kept) if found and found.token == index.token else index


def renew(
    old: Index | None,
    walked: Walk,
    read_picture: Read,
    read_caption: Read,
    readers: str,
    folder: Path,
    num_workers: int = 8,
) -> Index:
    """The index of what was found: what changed is read, the rest comes from `old`, which is returned if all does.

    `readers` names the libraries that read pictures: what one could not read, another may.
    """
    import pyarrow as pa

    where, before = _places(old, walked)
    is_other = before != walked.stamps
    stale, is_recaptioned = is_other[:, :2].any(axis=1), is_other[:, 2:].any(axis=1)
    if old is not None and _said(old.table)["readers"] != readers:
        stale |= (where >= 0) & (old.numbers("width")[where] == 0)
    if old and len(old.table) == len(where) and not (stale.any() or is_recaptioned.any()):
        return old
    with Threads(num_workers) as threads:
        pictures = _merged(old, _picture_schema(), where, stale, walked, read_picture, threads)
        captions = _merged(old, _caption_schema(), where, is_recaptioned, walked, read_caption, threads)
    columns = {"name": walked.names, **{part: pictures[part] for part in pictures.column_names}}
    columns |= {part: captions[part] for part in captions.column_names}
    token = secrets.token_hex(8)
    # by the folder, `aitk cache prune` sees whether the index is still of use
    said = json.dumps({"format": FORMAT, "token": token, "readers": readers, "folder": os.path.realpath(folder)})
    table = pa.table(columns, schema().with_metadata({"aitk": said})).combine_chunks()
    return Index(table, token, np.where(stale, -1, where))


def changed(old: Index, new: Index) -> list[str]:
    """The names of the files that both have, of which the new one read another size or time than the old one knew."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if new.kept is None:
        return []
    names = new.table["name"].chunk(0).take(pa.array(np.flatnonzero(new.kept < 0)))
    known = old.table["name"].filter(pa.array(old.numbers("mtime_ns") != UNSURE))
    return [os.fsdecode(name) for name in names.filter(pc.is_in(names, value_set=known)).to_pylist()]


def schema() -> pa.Schema:
    """The columns of an index."""
    import pyarrow as pa

    return pa.schema([pa.field("name", pa.large_binary()), *_picture_schema(), *_caption_schema()])


def _picture_schema() -> pa.Schema:
    """A picture that cannot be read has the width 0 and a problem; a still one has NaN for its length."""
    import pyarrow as pa

    numbers = {"bytes": pa.int64(), "mtime_ns": pa.int64(), "width": pa.int32(), "height": pa.int32()}
    return pa.schema({**numbers, "last_s": pa.float64(), "fps": pa.float64(), "problem": pa.string()})


def _caption_schema() -> pa.Schema:
    import pyarrow as pa

    stamps = {"caption_bytes": pa.int64(), "caption_mtime_ns": pa.int64()}
    # bytes, because a caption that is a file's name need not be text
    return pa.schema({**stamps, "caption": pa.large_binary(), "caption_problem": pa.string()})


def _said(table: pa.Table) -> dict[str, str]:
    return dict(json.loads(table.schema.metadata[b"aitk"]))


def _places(old: Index | None, walked: Walk) -> tuple[np.ndarray, np.ndarray]:
    """The row of each file in the old index (-1: it is not there), and its stamps there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    count = len(walked.names)
    before = np.full((count, len(STAMPS)), UNSURE, np.int64)
    if old is None:
        return np.full(count, -1, np.int64), before
    names = old.table["name"].chunk(0)
    if names.equals(walked.names):
        where = np.arange(count)
    else:
        where = pc.index_in(walked.names, value_set=names).cast(pa.int64()).fill_null(-1).to_numpy()
    for number, column in enumerate(STAMPS):
        before[:, number] = np.where(where >= 0, old.numbers(column)[where], UNSURE)
    return where, before


def _merged(
    old: Index | None,
    columns: pa.Schema,
    where: np.ndarray,
    is_read: np.ndarray,
    walked: Walk,
    read: Read,
    threads: Threads,
) -> pa.Table:
    """Some columns: of the files to be read what `read` says, of the others what is known."""
    import pyarrow as pa

    rows, first = np.flatnonzero(is_read), STAMPS.index(columns.names[0])

    def names_of(some: np.ndarray) -> list[bytes]:
        return list(walked.names.take(pa.array(some)).to_pylist())

    def batch(some: np.ndarray, found: list[dict[str, Any]]) -> pa.RecordBatch:
        stamps = (dict(zip(columns.names, stamp, strict=False)) for stamp in walked.stamps[some, first : first + 2])
        return pa.RecordBatch.from_pylist([{**stamp, **one} for stamp, one in zip(stamps, found, strict=True)], columns)

    parts = [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
    # the first ones tell how fast the disk is
    few, rest = parts[:JUDGED], parts[JUDGED:]
    read_each = partial(read_all, read)
    first_answers = threads.map(lambda some: read_each(names_of(some)), _calls(few), len)
    batches = [batch(*pair) for pair in zip(few, first_answers, strict=True)]
    if threads.is_slow or len(rows) < APART_FROM:
        answers: Iterable[list[dict[str, Any]]] = threads.map(lambda some: read_each(names_of(some)), _calls(rest), len)
        batches += [batch(*pair) for pair in zip(rest, answers, strict=True)]
    else:
        with Workers(os.cpu_count() or 1) as workers:
            answers = workers.map(read_each, map(names_of, rest), lambda names: os.fsdecode(names[0]))
            batches += [batch(*pair) for pair in zip(rest, answers, strict=True)]
    fresh = pa.Table.from_batches(batches, columns)
    if old is None:
        return fresh
    known = old.table.select(columns.names).replace_schema_metadata(None)
    take = np.where(is_read, len(known) + np.cumsum(is_read) - 1, where)
    return pa.concat_tables([known, fresh]).take(pa.array(take))


def read_all(read: Read, names: Sequence[bytes]) -> list[dict[str, Any]]:
    """What `read` says of some files; in a process of its own where there are many."""
    return [read(os.fsdecode(name)) for name in names]


def _calls(parts: Sequence[np.ndarray]) -> list[tuple[np.ndarray]]:
    return [(part,) for part in parts]
