"""One file of cached rows: a safetensors file of few large tensors. Numpy only, so that looking into it is quick.

    keys     U64 [n, 2]   the key of every row
    starts   I64 [n + 1]  row i has the entries starts[i] to starts[i + 1]
    entries  I64 [m, 2]   the kind of a tensor, and where its values begin among those of its dtype
    kinds    U8  [k]      JSON: a list of [name, dtype, shape]
    F32, BF16, ...        all values of a dtype, one tensor after another

The header says `format`, `written`, `about` (who made the rows, for people) and `checksum`.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from toolkit.data.cache.keys import HALF, as_array

FORMAT = "aitk-rows-2"
FAMILY = "aitk-rows-"
SUFFIX = ".safetensors"
ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1),
}
TABLES = {"keys": "U64", "starts": "I64", "entries": "I64", "kinds": "U8"}
INDEX = np.dtype("<i8")
HEADER_BYTES = 2**16
"""Headers of ours are far smaller."""


class Kind(NamedTuple):
    """What a tensor of a row is."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """The size of its values."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


Part = tuple[Kind, np.ndarray]
"""A tensor of a row and its values, uint8 [bytes]."""


class BadShard(ValueError):
    """A file that cannot serve rows; the message says why."""


class OldShard(BadShard):
    """A file of rows in the format of another version."""


@dataclass(frozen=True)
class Header:
    """What the beginning of a shard says."""

    metadata: Mapping[str, str]
    places: Mapping[str, tuple[str, tuple[int, ...], int, int]]
    """Of each tensor: dtype, shape, begin and end in the file."""
    num_bytes: int
    """The size of the file."""

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return self.places["keys"][1][0]

    @property
    def about(self) -> dict[str, str]:
        """Who made the rows."""
        told: dict[str, str] = json.loads(self.metadata.get("about", "{}"))
        return told


def read_header(path: Path) -> Header:
    """The header of a file. Raises BadShard if the file is not whole or not ours."""
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(HEADER_BYTES, num_bytes - 8):
            raise BadShard("damaged, or not written by this program")
        raw = file.read(length)
    header = parse_header(raw)
    if header.num_bytes != num_bytes:
        raise BadShard(f"damaged: it has {num_bytes:,} of {header.num_bytes:,} bytes")
    return header


def parse_header(raw: bytes) -> Header:
    """The header that the first bytes of a file are, behind its length."""
    try:
        listed = json.loads(raw)
        metadata = dict(listed.pop("__metadata__", {}))
        places = {name: _place(entry, 8 + len(raw)) for name, entry in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadShard("its header is damaged") from error
    kind = str(metadata.get("format", ""))
    if kind != FORMAT:
        raise OldShard("of another version") if kind.startswith(FAMILY) else BadShard("not written by this program")
    is_ours = all(name in places and places[name][0] == dtype for name, dtype in TABLES.items()) and all(
        (name in TABLES or name == dtype) and end - begin == prod(shape) * ITEM_BYTES.get(dtype, 0)
        for name, (dtype, shape, begin, end) in places.items()
    )
    if not is_ours or places["starts"][1] != (places["keys"][1][0] + 1,):
        raise BadShard("its header is damaged")
    return Header(metadata, places, max(place[3] for place in places.values()))


class Shard:
    """The rows of a file that is mapped, or of memory that looks like one: only what is asked for is read."""

    def __init__(self, name: str, header: Header, mapped: mmap.mmap) -> None:
        self.name, self.header, self._mapped = name, header, mapped
        self._data = np.frombuffer(mapped, np.uint8)
        # the tables are read now or soon; of the values one row here and one there, with nothing around it
        self._advise("MADV_RANDOM", 0, header.num_bytes)
        for table in TABLES:
            self.fetch(*header.places[table][2:])
        self.keys = self._table("keys", HALF).reshape(-1, 2)
        self.starts = self._table("starts", INDEX)
        self.entries = self._table("entries", INDEX).reshape(-1, 2)
        if self.starts[0] != 0 or self.starts[-1] != len(self.entries):
            raise BadShard("its index is damaged")

    def fetch(self, begin: int, end: int) -> None:
        """Have these bytes read from the disk, without waiting for it."""
        start = begin // mmap.PAGESIZE * mmap.PAGESIZE
        self._advise("MADV_WILLNEED", start, end - start)

    def move_to(self, copy: Path) -> None:
        """Read from a copy of the file from here on; what was read stays readable."""
        mapped = _map(copy)
        self._mapped, self._data = mapped, np.frombuffer(mapped, np.uint8)
        self._advise("MADV_RANDOM", 0, self.header.num_bytes)

    @cached_property
    def kinds(self) -> list[Kind]:
        """The kinds of tensors that its rows have."""
        begin, end = self.header.places["kinds"][2:]
        return [Kind(name, dtype, tuple(shape)) for name, dtype, shape in json.loads(bytes(self._data[begin:end]))]

    def parts(self, row: int, name: str | None = None, fetch: bool = True) -> list[Part]:
        """The tensors of a row, or those of one name; with `fetch`, their values are on their way from the disk."""
        parts = []
        for number, offset in self.entries[self.starts[row] : self.starts[row + 1]].tolist():
            kind, start, item_bytes, num_bytes = self._layouts[number]
            if name is None or name == kind.name:
                begin = start + offset * item_bytes
                if fetch:
                    self.fetch(begin, begin + num_bytes)
                parts.append((kind, self._data[begin : begin + num_bytes]))
        return parts

    @cached_property
    def _layouts(self) -> list[tuple[Kind, int, int, int]]:
        """Of every kind: where the values of its dtype begin, bytes per value, bytes in all."""
        begins = {dtype: place[2] for dtype, place in self.header.places.items()}
        return [(kind, begins[kind.dtype], ITEM_BYTES[kind.dtype], kind.num_bytes) for kind in self.kinds]

    def _table(self, name: str, dtype: np.dtype[Any]) -> np.ndarray:
        begin, end = self.header.places[name][2:]
        return self._data[begin:end].view(dtype)

    def _advise(self, what: str, start: int, length: int) -> None:
        # Windows has no such call
        if length and hasattr(mmap, what):
            self._mapped.madvise(getattr(mmap, what), start, length)


def open_shard(path: Path) -> Shard:
    """Map a file. Raises BadShard if it is not whole or not ours."""
    header = read_header(path)
    return Shard(path.name, header, _map(path))


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        if sys.version_info >= (3, 13):
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY, trackfd=False)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


@dataclass(frozen=True)
class Packed:
    """A shard that is ready to be written."""

    raw_header: bytes
    chunks: Sequence[np.ndarray]

    @property
    def header(self) -> Header:
        """What its beginning will say."""
        return parse_header(self.raw_header)

    def write(self, file: Writable) -> None:
        """Write it all."""
        file.write(len(self.raw_header).to_bytes(8, "little") + self.raw_header)
        for chunk in self.chunks:
            file.write(chunk.data)


class Writable(Protocol):
    """A file, or memory that is written as one."""

    def write(self, data: Any, /) -> int: ...


def pack(rows: Mapping[bytes, Sequence[Part]], about: Mapping[str, str]) -> Packed:
    """Put rows in order; their values are not copied."""
    kinds: dict[Kind, int] = {}
    values: dict[str, list[np.ndarray]] = {}
    lengths: dict[str, int] = {}
    starts, entries = [0], []
    for parts in rows.values():
        for kind, data in parts:
            values.setdefault(kind.dtype, []).append(data)
            entries.append((kinds.setdefault(kind, len(kinds)), lengths.get(kind.dtype, 0)))
            lengths[kind.dtype] = lengths.get(kind.dtype, 0) + prod(kind.shape)
        starts.append(len(entries))
    tables = {
        "keys": as_array(rows),
        "starts": np.array(starts, INDEX),
        "entries": np.array(entries, INDEX).reshape(-1, 2),
        "kinds": np.frombuffer(json.dumps(list(kinds)).encode(), np.uint8),
    }
    # the widest first, so that all values are aligned
    contents = [(name, TABLES[name], list(table.shape), [_flat(table)]) for name, table in tables.items()]
    contents += [(dtype, dtype, [lengths[dtype]], chunks) for dtype, chunks in values.items()]
    contents.sort(key=lambda content: -ITEM_BYTES[content[1]])
    listed, end = {}, 0
    for name, dtype, shape, _ in contents:
        begin, end = end, end + prod(shape) * ITEM_BYTES[dtype]
        listed[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    chunks = [chunk for *_, some in contents for chunk in some]
    written = datetime.now(timezone.utc).isoformat(timespec="seconds")
    metadata = {"format": FORMAT, "written": written, "about": json.dumps(dict(about))}
    digest = hashlib.blake2b(checksum_start(metadata), digest_size=16)
    for chunk in chunks:
        digest.update(chunk.data)
    metadata["checksum"] = digest.hexdigest()
    header = json.dumps({"__metadata__": metadata, **listed}, separators=(",", ":")).encode()
    # padded, so that the values behind it are aligned
    return Packed(header.ljust((len(header) + 7) // 8 * 8), chunks)


def checksum_start(metadata: Mapping[str, str]) -> bytes:
    """What the checksum of a shard is over before the bytes behind its header: the metadata but for itself."""
    return json.dumps({name: text for name, text in metadata.items() if name != "checksum"}, sort_keys=True).encode()


def _place(entry: Mapping[str, Any], start: int) -> tuple[str, tuple[int, ...], int, int]:
    begin, end = entry["data_offsets"]
    return str(entry["dtype"]), tuple(entry["shape"]), start + int(begin), start + int(end)


def _flat(table: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(table).reshape(-1).view(np.uint8)
