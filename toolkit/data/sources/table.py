"""Records over Arrow columns: nothing of a picture is an object until it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.frames import Clip
from toolkit.data.records import READERS, Captions, Record, as_numbers, digest_or_zeros
from toolkit.data.scanning.scan import BARE, Scan
from toolkit.data.sources.kept import kept_file, read_kept, write_kept
from toolkit.data.sources.reading import Reading
from toolkit.data.sources.rows import Place, places, shortened

if TYPE_CHECKING:
    import pyarrow as pa

IDENTITY = ("name", "offset", "bytes", "mtime_ns")
"""A content is the same as long as these are."""
NUMBERS = ("archive", "offset", "length", "width", "height", "last_s", "fps")
HASHED_AT_ONCE = 1 << 16
"""So many contents are read before their hashes are written down."""


def to_scan(seen: pa.Table, place: Place, reading: Reading, notes: Sequence[str] = ()) -> Scan:
    """The records of sorted rows whose pictures were looked at, and what is wrong with them."""
    import pyarrow.compute as pc

    is_broken = pc.not_equal(seen["broken"], "")
    lines = [f"{place.where(row)}: {row['broken']}" for row in seen.filter(is_broken).to_pylist()]
    if reading.strict and lines:
        raise ValueError("; ".join(shortened(lines)))
    good = seen.filter(pc.invert(is_broken)) if lines else seen
    if not len(good):
        raise ValueError(
            "; ".join([f"{place.source}: none of its {len(lines)} pictures can be read", *shortened(lines)])
        )
    remarks = good.filter(pc.not_equal(good["remark"], ""))["remark"].to_pylist()
    bare = good.filter(pc.is_null(good["caption"]))["name"]
    missing = f"{place.source}: {len(bare)} of {len(good)} pictures{BARE}"
    return Scan(
        TableRecords(good, place, Digests(good, place, reading.index)),
        [
            *shortened([f"{line}; left out" for line in lines]),
            *shortened(remarks),
            *notes,
            *([f"{missing}{bare[0].as_py()})"] if len(bare) else []),
        ],
    )


class Digests:
    """The hashes of all contents of a table, read when first asked for and kept in the index folder."""

    def __init__(self, table: pa.Table, place: Place, index: Path | None) -> None:
        self._table, self._place = table, place
        self._kept = kept_file(index, place.source, "digests") if index else None

    @cached_property
    def known(self) -> np.ndarray:
        """uint64 [N, 2]; zeros where a hash is not known."""
        import pyarrow.compute as pc

        values = np.zeros((len(self._table), 2), np.uint64)
        found = read_kept(self._kept) if self._kept else None
        if not found or not len(values):
            return values
        at = places(self._table, found[0])
        before = found[0].take(np.maximum(at, 0))
        is_same = at >= 0
        for column in IDENTITY:
            is_same &= pc.equal(self._table[column], before[column]).to_numpy()
        values[is_same] = np.stack([before["low"].to_numpy(), before["high"].to_numpy()], 1)[is_same]
        return values

    def of(self, rows: np.ndarray) -> np.ndarray:
        """uint64 [N, 2] of some rows; zeros where a file cannot be read."""
        unknown = rows[~self.known[rows].any(1)]
        for start in range(0, len(unknown), HASHED_AT_ONCE):
            some = unknown[start : start + HASHED_AT_ONCE]
            wanted = self._table.select(["name", "archive", "offset", "length"]).take(some).to_pylist()
            with ThreadPoolExecutor(READERS) as pool:
                self.known[some] = as_numbers(list(pool.map(self._digest, wanted)))
            self._write()
        return self.known[rows]

    def _digest(self, row: dict[str, Any]) -> bytes:
        return digest_or_zeros(self._place.path_of(row), self._place.part_of(row))

    def _write(self) -> None:
        import pyarrow as pa

        if self._kept:
            columns = {column: self._table[column] for column in IDENTITY}
            low, high = (np.ascontiguousarray(self.known[:, at]) for at in (0, 1))
            write_kept(self._kept, pa.table({**columns, "low": low, "high": high}), "", [])


class TableRecords:
    """The pictures of a table, or the rows of it that were chosen."""

    def __init__(self, table: pa.Table, place: Place, digests: Digests, rows: np.ndarray | None = None) -> None:
        self._table, self._place, self._digests = table, place, digests
        self._rows = np.arange(len(table), dtype=np.int32) if rows is None else rows
        self._numbers = {column: table[column].to_numpy() for column in NUMBERS}
        self.widths, self.heights = self._chosen("width"), self._chosen("height")

    @property
    def clips(self) -> np.ndarray:
        """float64 [N, 2]: `last_s` and `fps` of every clip, NaN for a still picture."""
        return np.stack([self._chosen("last_s"), self._chosen("fps")], 1)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Record:
        at, numbers = int(self._rows[row]), self._numbers
        name, caption, short = (self._table[column][at].as_py() for column in ("name", "caption", "caption_short"))
        place = {"name": name, **{column: int(numbers[column][at]) for column in ("archive", "offset", "length")}}
        fps, digest = float(numbers["fps"][at]), self._digests.known[at]
        return Record(
            self._place.path_of(place),
            name,
            int(numbers["width"][at]),
            int(numbers["height"][at]),
            caption,
            short,
            clip=None if np.isnan(fps) else Clip(float(numbers["last_s"][at]), fps),
            part=self._place.part_of(place),
            known_digest=digest.astype("<u8").tobytes() if digest.any() else b"",
        )

    def __iter__(self) -> Iterator[Record]:
        return (self[row] for row in range(len(self)))

    def _chosen(self, column: str) -> np.ndarray:
        return np.asarray(self._numbers[column][self._rows])

    def chosen(self, rows: np.ndarray) -> TableRecords:
        """Some of them, in this order."""
        return TableRecords(self._table, self._place, self._digests, self._rows[rows])

    def digests(self, rows: np.ndarray | None = None) -> np.ndarray:
        """uint64 [N, 2]: the hashes of some contents, or of all; zeros where a file cannot be read."""
        return self._digests.of(self._rows if rows is None else self._rows[rows])

    def names(self) -> Iterator[str]:
        """The names of all."""
        for start in range(0, len(self), HASHED_AT_ONCE):
            yield from self._table["name"].take(self._rows[start : start + HASHED_AT_ONCE]).to_pylist()

    def captions(self, rows: np.ndarray | None = None) -> Iterator[Captions]:
        """The captions of some records, or of all, those that several share once."""
        columns = ["caption", "caption_short"]
        some = self._table.select(columns).take(self._rows if rows is None else self._rows[rows])
        for batch in some.group_by(columns, use_threads=False).aggregate([]).to_batches(HASHED_AT_ONCE):
            yield from zip(*(batch[column].to_pylist() for column in columns), strict=True)
