"""Records out of the columns of an index: each is made when asked for, and names and captions stay on the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np

from toolkit.atomic import atomic_path
from toolkit.data.cache.tidy import tidy, writing
from toolkit.data.frames import Clip
from toolkit.data.records import READERS, Captions, Record, as_numbers, digest_or_zeros
from toolkit.data.scanning.index import Index

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "aitk-contents-1"
AT_ONCE = 1024
SAVE_EVERY_S = 60.0


class Contents:
    """What only a look at the whole file tells: hashes, in a small file beside the index that a run may add to."""

    def __init__(self, index: Index, path: Path | None) -> None:
        """`path` is the file of the index; None: nothing is kept."""
        self.token, self.path = index.token, path and path.with_suffix(".contents")
        count = len(index.table)
        found = _load_contents(self.path, self.token) if self.path else None
        if found is None:
            found = np.zeros((count, 2), np.uint64), np.zeros(count, np.uint64)
        self.digests, self.looks = found
        """uint64 [N, 2] and [N]: hash of the content, and perceptual hash; zeros where unknown."""

    def carry(self, before: Contents, kept: np.ndarray) -> None:
        """Take over what was known of files that are the same; `kept` has the row before of each, or -1."""
        same = kept >= 0
        self._own()
        self.digests[same], self.looks[same] = before.digests[kept[same]], before.looks[kept[same]]

    def set_digests(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Remember hashes of contents."""
        self._own()
        self.digests[rows] = values

    def set_looks(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Remember perceptual hashes."""
        self._own()
        self.looks[rows] = values

    def save(self) -> None:
        """Write what is known, if the index on the disk is still this one; beside what another process has found."""
        import pyarrow as pa

        if self.path is None or _token(self.path.with_suffix(".arrow")) != self.token:
            return
        if (theirs := _load_contents(self.path, self.token)) is not None:
            self._own()
            unknown = (self.digests == 0).all(axis=1)
            self.digests[unknown] = theirs[0][unknown]
            self.looks = np.where(self.looks == 0, theirs[1], self.looks)
        pairs = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), len(self.digests), [None, pa.py_buffer(self.digests.astype("<u8").tobytes())]
        )
        said = json.dumps({"format": FORMAT, "token": self.token})
        table = pa.table({"digest": pairs, "look": self.looks}).replace_schema_metadata({"aitk": said})
        try:
            folder, columns = self.path.parent, table.schema
            tidy(folder)
            with (
                writing(folder),
                atomic_path(self.path) as temporary,
                pa.ipc.new_file(str(temporary), columns) as writer,
            ):
                writer.write_table(table)
        except OSError:
            # found again by the next run
            return

    def _own(self) -> None:
        """Mapped numbers become a copy that can be changed."""
        if not self.digests.flags.writeable:
            self.digests, self.looks = self.digests.copy(), self.looks.copy()


class IndexedRecords:
    """The records of a folder, or some of them, in the columns of its index."""

    def __init__(self, folder: Path, index: Index, contents: Contents, rows: np.ndarray | None = None) -> None:
        """`rows` of the index are the records; None: all."""
        self.folder, self._index, self._contents, self._rows = folder, index, contents, rows
        self._names, self._captions = index.table["name"].chunk(0), index.table["caption"].chunk(0)
        self.widths, self.heights = self._column("width"), self._column("height")
        self._last_s, self._fps = self._column("last_s"), self._column("fps")

    def _column(self, name: str) -> np.ndarray:
        column = self._index.numbers(name)
        return column if self._rows is None else column[self._rows]

    def __len__(self) -> int:
        return len(self.widths)

    def __getitem__(self, row: int) -> Record:
        if not 0 <= row < len(self):
            raise IndexError(row)
        place = int(row if self._rows is None else self._rows[row])
        name, caption = self.name(row), self._captions[place].as_py()
        length = float(self._last_s[row])
        digest = self._contents.digests[place]
        return Record(
            self.folder / name,
            name,
            int(self.widths[row]),
            int(self.heights[row]),
            None if caption is None else os.fsdecode(caption),
            clip=None if np.isnan(length) else Clip(length, float(self._fps[row])),
            known_digest=digest.astype("<u8").tobytes() if digest.any() else b"",
        )

    def __iter__(self) -> Iterator[Record]:
        return (self[row] for row in range(len(self)))

    def name(self, row: int) -> str:
        """The name of a record."""
        return os.fsdecode(self._names[int(row if self._rows is None else self._rows[row])].as_py())

    @property
    def clips(self) -> np.ndarray:
        """float64 [N, 2]: `last_s` and `fps` of every clip, NaN for a still picture."""
        return np.stack([self._last_s, self._fps], axis=1)

    def chosen(self, rows: np.ndarray) -> IndexedRecords:
        """Some of them, in this order."""
        places = np.asarray(rows) if self._rows is None else self._rows[rows]
        return IndexedRecords(self.folder, self._index, self._contents, places.astype(np.int32))

    def digests(self, rows: np.ndarray | None = None) -> np.ndarray:
        """uint64 [N, 2]: the hashes of some contents, or of all; zeros where a file cannot be read.

        What is not known yet is read, in parallel, and kept beside the index every now and then and at the end.
        """
        places = self._places(rows)
        unknown = np.unique(places[(self._contents.digests[places] == 0).all(axis=1)])
        if len(unknown):
            self._read_digests(unknown)
        return np.asarray(self._contents.digests[places])

    def names(self) -> Iterator[str]:
        """The names of all."""
        places = self._places(None)
        for start in range(0, len(places), AT_ONCE):
            yield from map(os.fsdecode, self._names.take(places[start : start + AT_ONCE]).to_pylist())

    def captions(self, rows: np.ndarray | None = None) -> Iterator[Captions]:
        """The captions of some records, or of all, those that several share once."""
        is_all = rows is None and self._rows is None
        some = self._captions if is_all else self._captions.take(self._places(rows))
        found = some.unique()
        for start in range(0, len(found), AT_ONCE):
            for one in found[start : start + AT_ONCE].to_pylist():
                yield None if one is None else os.fsdecode(one), None

    def looks(self) -> np.ndarray:
        """uint64 [N]: perceptual hashes, 0 where unknown."""
        return np.asarray(self._contents.looks[self._places(None)])

    def remember_looks(self, values: np.ndarray) -> None:
        """Keep the perceptual hashes of all of them for the next run."""
        self._contents.set_looks(self._places(None), values)
        self._contents.save()

    def _places(self, rows: np.ndarray | None) -> np.ndarray:
        """The rows of the index."""
        if rows is None:
            return np.arange(len(self)) if self._rows is None else self._rows
        return np.asarray(rows) if self._rows is None else self._rows[rows]

    def _read_digests(self, places: np.ndarray) -> None:
        saved_s = monotonic()
        try:
            with ThreadPoolExecutor(READERS) as pool:
                for start in range(0, len(places), AT_ONCE):
                    some = places[start : start + AT_ONCE]
                    paths = (self.folder / os.fsdecode(self._names[int(place)].as_py()) for place in some)
                    self._contents.set_digests(some, as_numbers(list(pool.map(digest_or_zeros, paths))))
                    if monotonic() - saved_s > SAVE_EVERY_S:
                        self._contents.save()
                        saved_s = monotonic()
        finally:
            self._contents.save()


def _load_contents(path: Path, token: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The hashes in a file, mapped, if they belong to the index with this token."""
    import pyarrow as pa

    if _token(path) != token:
        return None
    table: pa.Table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    digests, looks = table["digest"].chunk(0), table["look"].chunk(0)
    pairs = np.frombuffer(digests.buffers()[1], "<u8").reshape(-1, 2)
    return pairs.astype(np.uint64, copy=False), looks.to_numpy()


def _token(path: Path) -> str:
    """The token in a file; "" if it cannot be read."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            return str(json.loads(pa.ipc.open_file(file).schema.metadata[b"aitk"])["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
