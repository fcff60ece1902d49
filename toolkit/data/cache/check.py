"""Reads all of a shard and says what is wrong with it, for `aitk cache verify`. Numpy only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from toolkit.data.cache.shard import (
    ITEM_BYTES,
    BadShard,
    Header,
    OldShard,
    Shard,
    checksum_start,
    open_shard,
    read_header,
)

CHUNK_BYTES = 2**24
# the bits that are all set in values that are infinite or no numbers
NOT_FINITE = {
    "F64": ("<u8", 0x7FF0000000000000),
    "F32": ("<u4", 0x7F800000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("u1", 0x7C),
    "F8_E4M3": ("u1", 0x7F),
    "C64": ("<u4", 0x7F800000),
}


def check_shard(path: Path) -> str:
    """What is wrong with a file of rows; "" if nothing. Raises OldShard for one of another version."""
    try:
        header, shard = read_header(path), open_shard(path)
        _check_index(shard)
    except OldShard:
        raise
    except BadShard as error:
        return str(error)
    digest, bad, first = hashlib.blake2b(checksum_start(header.metadata), digest_size=16), 0, ""
    for name, begin, values in _chunks(path, header):
        digest.update(values.data)
        wrong = np.flatnonzero(_is_not_finite(name, values)) if name in NOT_FINITE else np.empty(0, np.intp)
        if len(wrong) and not first:
            width = np.dtype(NOT_FINITE[name][0]).itemsize
            first = _owner(shard, name, (begin + int(wrong[0]) * width) // ITEM_BYTES[name])
        bad += len(wrong)
    if digest.hexdigest() != header.metadata.get("checksum"):
        return "damaged: its content is not what was written"
    return f"{bad:,} values are not finite (first: {first})" if bad else ""


def _chunks(path: Path, header: Header) -> Iterator[tuple[str, int, np.ndarray]]:
    """Everything behind the header: the name of a tensor, where in it, and bytes."""
    with path.open("rb") as file:
        ordered = sorted((begin, end, name) for name, (_, _, begin, end) in header.places.items())
        for begin, end, name in ordered:
            file.seek(begin)
            for start in range(0, end - begin, CHUNK_BYTES):
                yield name, start, np.frombuffer(file.read(min(CHUNK_BYTES, end - begin - start)), np.uint8)


def _is_not_finite(dtype: str, values: np.ndarray) -> np.ndarray:
    integer, bits = NOT_FINITE[dtype]
    numbers = values.view(integer)
    is_bad: np.ndarray = (numbers & numbers.dtype.type(bits)) == bits
    return is_bad


def _check_index(shard: Shard) -> None:
    """Raise BadShard if a row points to something that is not there."""
    try:
        kinds = shard.kinds
        sizes = np.array([prod(kind.shape) for kind in kinds], np.int64)
        lengths = np.array([shard.header.places[kind.dtype][1][0] for kind in kinds], np.int64)
    except (ValueError, KeyError, TypeError) as error:
        raise BadShard("its index is damaged") from error
    numbers, offsets = shard.entries[:, 0], shard.entries[:, 1]
    is_whole = bool(np.all(np.diff(shard.starts) > 0)) and bool(np.all((numbers >= 0) & (numbers < len(kinds))))
    if not is_whole or np.any(offsets < 0) or np.any(offsets + sizes[numbers] > lengths[numbers]):
        raise BadShard("its index is damaged")


def _owner(shard: Shard, dtype: str, value: int) -> str:
    """Which tensor of which row a value of a dtype is in."""
    numbers = [number for number, kind in enumerate(shard.kinds) if kind.dtype == dtype]
    entries = np.flatnonzero(np.isin(shard.entries[:, 0], numbers) & (shard.entries[:, 1] <= value))
    entry = entries[np.argmax(shard.entries[entries, 1])]
    row = int(np.searchsorted(shard.starts, entry, side="right")) - 1
    return f"'{shard.kinds[shard.entries[entry, 0]].name}' of row {row}"
