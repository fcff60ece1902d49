"""The rows of a source: gathered in Arrow columns, their pictures looked at in parallel, and made into a Scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.records import Part

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 10
"""So many lines of one kind are listed; the rest is counted."""
STEP = 8192
"""So many rows are Python objects at a time."""
STATED = ("name", "number", "archive", "offset", "length", "caption", "caption_short")
SEEN = ("width", "height", "last_s", "fps", "bytes", "mtime_ns", "is_beside", "broken", "remark")


@dataclass(frozen=True)
class Place:
    """Where the names of a source lead, and what a row is called in messages."""

    source: Path
    folder: Path
    """Names are paths below it."""
    unit: str = ""
    """What `number` counts: `line` of the source. Blank: names say enough."""
    archives: tuple[Path, ...] = ()

    def where(self, row: dict[str, Any]) -> str:
        """How a message names a row."""
        return (
            f"{self.source}, {self.unit} {row['number']}: {row['name']}"
            if self.unit
            else str(self.folder / row["name"])
        )

    def path_of(self, row: dict[str, Any]) -> Path:
        """The picture, or the archive that holds it."""
        return self.archives[row["archive"]] if row["archive"] >= 0 else self.folder / row["name"]

    def part_of(self, row: dict[str, Any]) -> Part | None:
        """Where it lies in an archive."""
        return (row["offset"], row["length"]) if row["archive"] >= 0 else None


class Rows:
    """Collects what a source says about its pictures, before any picture is looked at."""

    def __init__(self) -> None:
        self._values: dict[str, list[Any]] = {column: [] for column in STATED}
        self._batches: list[pa.RecordBatch] = []

    def add(
        self,
        name: str,
        number: int = 0,
        caption: str | None = None,
        caption_short: str | None = None,
        archive: int = -1,
        part: Part = (0, -1),
    ) -> None:
        """One more picture."""
        values = (name, number, archive, *part, caption, caption_short)
        for column, value in zip(STATED, values, strict=True):
            self._values[column].append(value)
        if len(self._values["name"]) == STEP:
            self._close()

    def table(self) -> pa.Table:
        """All of them, in the order in which they came."""
        import pyarrow as pa

        self._close()
        return pa.Table.from_batches(self._batches, _stated_schema())

    def _close(self) -> None:
        import pyarrow as pa

        if self._values["name"]:
            self._batches.append(pa.RecordBatch.from_pydict(self._values, _stated_schema()))
            self._values = {column: [] for column in STATED}


def distinct(rows: pa.Table, place: Place) -> tuple[pa.Table, list[str]]:
    """The rows sorted by name, the first of each name; and what is said about the others."""
    rows = by_name(rows)
    names = rows["name"].combine_chunks()
    again = np.zeros(len(names), bool)
    if len(names) > 1:
        import pyarrow.compute as pc

        again[1:] = pc.equal(names[1:], names[:-1]).to_numpy(zero_copy_only=False)
    if not again.any():
        return rows, []
    first = rows.slice(int(again.argmax()), 1).to_pylist()[0]
    note = f"{place.source}: pictures are named again in {again.sum()} places (first: {place.unit} {first['number']}"
    return rows.filter(~again), [f"{note}, {first['name']}); the first place counts"]


def by_name(rows: pa.Table) -> pa.Table:
    """The rows sorted by name, those of one name as they came."""
    import pyarrow.compute as pc

    order = pc.sort_indices(rows, sort_keys=[("name", "ascending"), ("number", "ascending")])
    # what is mapped from the disk stays there
    return rows if np.array_equal(order.to_numpy(), np.arange(len(rows))) else rows.take(order)


def places(rows: pa.Table, known: pa.Table) -> np.ndarray:
    """Where each row is among those that are known; -1: nowhere."""
    import pyarrow.compute as pc

    if rows["name"].equals(known["name"]):
        return np.arange(len(rows))
    found = pc.index_in(rows["name"], value_set=known["name"].combine_chunks())
    return found.fill_null(-1).to_numpy()


def stated(seen: pa.Table) -> pa.Table:
    """The rows as they were before their pictures were looked at."""
    import pyarrow as pa
    import pyarrow.compute as pc

    own = pc.if_else(seen["is_beside"], pa.scalar(None, pa.large_string()), seen["caption"])
    return seen.select(STATED).set_column(STATED.index("caption"), "caption", own)


def shortened(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many there are beside them."""
    return [*lines[:SHOWN], f"and {len(lines) - SHOWN} more like that"] if len(lines) > SHOWN + 1 else list(lines)


def clean(text: object) -> str | None:
    """A caption without blank ends, and without halves of characters, which JSON can hold; None if nothing is left."""
    return text.encode(errors="ignore").decode().strip() or None if isinstance(text, str) else None


def _stated_schema() -> pa.Schema:
    import pyarrow as pa

    types = (pa.large_string(), pa.int64(), pa.int32(), pa.int64(), pa.int64(), pa.large_string(), pa.large_string())
    return pa.schema(list(zip(STATED, types, strict=True)))


def seen_schema() -> pa.Schema:
    import pyarrow as pa

    numbers = (pa.int32(), pa.int32(), pa.float64(), pa.float64(), pa.int64(), pa.int64())
    types = (*numbers, pa.bool_(), pa.large_string(), pa.large_string())
    return pa.schema([*_stated_schema(), *zip(SEEN, types, strict=True)])
