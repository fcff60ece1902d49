"""What was read of a source is kept in the index folder for the next start: one memory-mapped Arrow file each."""

from __future__ import annotations

import json
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.atomic import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_FORMAT = 1
"""A file of another one is read anew."""


def kept_file(folder: Path, source: Path, kind: str) -> Path:
    """Where a table of a source is kept."""
    return folder / f"{kind}-{blake2b(str(source.absolute()).encode(), digest_size=10).hexdigest()}.arrow"


def stamp_of(source: Path, *reading: Any) -> str:
    """Changes when the file does, and with how it is read."""
    stat = source.stat()
    return json.dumps([KEPT_FORMAT, str(source.absolute()), stat.st_size, stat.st_mtime_ns, *reading])


def read_kept(file: Path) -> tuple[pa.Table, str, list[str]] | None:
    """A table with its stamp and what was said about the source, None if there is none."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as mapped:
            table = pa.ipc.open_file(mapped).read_all()
        told = table.schema.metadata or {}
        return table.replace_schema_metadata(None), told[b"stamp"].decode(), json.loads(told[b"notes"])
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None


def write_kept(file: Path, table: pa.Table, stamp: str, notes: list[str]) -> None:
    """Replace a table; where that is not possible, the next run finds out again."""
    import pyarrow as pa

    # in one piece, so that its columns are arrays that stay mapped
    table = table.combine_chunks().replace_schema_metadata({"stamp": stamp, "notes": json.dumps(notes)})
    with (
        suppress(OSError),
        atomic_path(file) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
