"""Rows of tensors by key, in memory or in append-only safetensors shards that several processes can add to.

The file format is in `shard.py`, the sorted keys of all shards in `key_index.py`, what a key is in `keys.py`.
"""

from __future__ import annotations

import mmap
import os
import secrets
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock

import numpy as np
import torch
from torch import Tensor

from toolkit.atomic import atomic_path
from toolkit.data.cache.folder import make_writable
from toolkit.data.cache.key_index import CacheIndex
from toolkit.data.cache.keys import KEY_BYTES, as_array, combine, key_for
from toolkit.data.cache.shard import SUFFIX, BadShard, Kind, OldShard, Packed, Part, Shard, open_shard, pack
from toolkit.data.cache.staging import staged
from toolkit.data.cache.tidy import tidy, writing

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

__all__ = ["Row", "RowCache", "as_array", "combine", "key_for"]

Row = Mapping[str, Tensor]
Keys = np.ndarray | Iterable[bytes]
"""uint64 [n, 2], or what `as_array` makes that of."""
SHARD_BYTES = 2**30
MEMORY_SHARD_BYTES = 2**28
FLUSH_EVERY_S = 60.0
OTHER_FILES = 1024
"""So many files may be open beside those of a cache."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class _Stored:
    """Shards in the order of their names, and where their keys are."""

    shards: Sequence[Shard]
    index: CacheIndex


class RowCache:
    """Rows {name: tensor} by key. Without a folder they live in memory only.

    Rows wait in memory until a shard is full, a minute has passed or `flush` is called; then the shard is written under
    a temporary name, synced and renamed: a kill loses only rows that were not flushed. Shards are never changed, so
    processes may write to one folder at once; `refresh` shows what the others have added. Of a row that two have made,
    that of the first shard by name counts, for everybody. Reading maps the shards: rows that are read stay readable
    when their file is deleted. `about` tells people who made the rows.
    """

    def __init__(
        self, folder: Path | None = None, shard_bytes: int = SHARD_BYTES, about: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.about = folder, dict(about or {})
        self.shard_bytes = shard_bytes if folder else min(shard_bytes, MEMORY_SHARD_BYTES)
        self.notices: list[str] = []
        self._waiting: dict[bytes, list[Part]] = {}
        self._waiting_bytes, self._flushed_at = 0, time.monotonic()
        self._stored = _Stored((), CacheIndex())
        # of those who write; reading needs none, see `_parts`
        self._lock = RLock()
        self._skipped: set[str] = set()
        self._used: set[str] = set()
        if folder:
            make_writable(folder)
            tidy(folder)
            self.refresh()

    def __contains__(self, key: bytes) -> bool:
        return key in self._waiting or bool(self._stored.index.contains(as_array([key]))[0])

    def __len__(self) -> int:
        index = self._stored.index
        return len(index) + int((~index.contains(as_array(self._waiting))).sum())

    def contains(self, keys: Keys) -> np.ndarray:
        """Which of many keys have a row, bool [n]."""
        wanted, waiting = _array(keys), self._waiting
        is_there = self._stored.index.contains(wanted)
        if waiting:
            for row in np.flatnonzero(~is_there):
                is_there[row] = wanted[row].tobytes() in waiting
        return is_there

    # -- reading --------------------------------------------------------------------------------------------------

    def get(self, key: bytes) -> dict[str, Tensor]:
        """The row of a key; KeyError if there is none. Tensors may be views of the cache: do not write to them."""
        return self.rows([key])[0]

    def rows(self, keys: Keys) -> list[dict[str, Tensor]]:
        """The rows of many keys, as `get` gives them."""
        return [{kind.name: _tensor(kind, data) for kind, data in parts} for parts in self._parts(keys)]

    def shapes(self, key: bytes) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors of a row, without reading them."""
        return {kind.name: kind.shape for kind, _ in self._parts([key], fetch=False)[0]}

    def gather(self, keys: Keys, name: str, out: Tensor | None = None, pin: bool = False) -> Tensor:
        """One tensor of many rows, [n, ...], copied once: into `out`, or into memory that is pinned if asked for.

        Raises KeyError if a row is missing or has no such tensor, ValueError if not all have one shape and dtype.
        """
        parts = self._parts(keys, name)
        if not all(parts):
            raise KeyError(name)
        kinds = {kind for ((kind, _),) in parts}
        if len(kinds) != 1:
            found = ", ".join(sorted(f"{kind.dtype} {list(kind.shape)}" for kind in kinds)) or "no rows"
            raise ValueError(f"'{name}' of several rows needs one shape and dtype, not {found}")
        (kind,) = kinds
        shape, dtype, size = (len(parts), *kind.shape), DTYPES[kind.dtype], kind.num_bytes
        stacked = torch.empty(shape, dtype=dtype, pin_memory=pin) if out is None else out
        assert stacked.shape == shape and stacked.dtype is dtype and stacked.is_contiguous()
        target = _bytes(stacked)
        for number, ((_, data),) in enumerate(parts):
            target[number * size : (number + 1) * size] = data
        return stacked

    def _parts(self, keys: Keys, name: str | None = None, fetch: bool = True) -> list[Sequence[Part]]:
        """The tensors of every row, or those of one name."""
        wanted = _array(keys)
        # in this order, because a flush moves rows from the first to the second
        waiting, stored = self._waiting, self._stored
        tables, rows = stored.index.locate(wanted)
        parts: list[Sequence[Part]] = []
        for number, (table, row) in enumerate(zip(tables.tolist(), rows.tolist(), strict=True)):
            if table >= 0:
                shard = stored.shards[table]
                if shard.name not in self._used:
                    self._use(shard)
                parts.append(shard.parts(row, name, fetch))
            else:
                waits = waiting[wanted[number].tobytes()]
                parts.append([part for part in waits if name is None or part[0].name == name])
        return parts

    def _mark_used(self, name: str) -> None:
        """Note on a file that it was of use, by which `aitk cache prune` goes; the rows may be on a read-only disk."""
        self._used.add(name)
        if self.folder:
            with suppress(OSError):
                os.utime(self.folder / name)

    def _use(self, shard: Shard) -> None:
        """Prepare for the first reading of a shard."""
        self._mark_used(shard.name)
        if self.folder and (copy := staged(path := self.folder / shard.name)) != path:
            with suppress(OSError):  # read where it is
                shard.move_to(copy)

    # -- writing --------------------------------------------------------------------------------------------------

    def put(self, key: bytes, row: Row) -> None:
        """Add a row; a key that is there already keeps its row."""
        assert row and len(key) == KEY_BYTES
        with self._lock:
            if key in self:
                return
            parts = [_copy(name, tensor) for name, tensor in row.items()]
            self._waiting[key] = parts
            self._waiting_bytes += sum(data.nbytes for _, data in parts)
            is_due = bool(self.folder) and time.monotonic() - self._flushed_at >= FLUSH_EVERY_S
            if is_due or self._waiting_bytes >= self.shard_bytes:
                self._move()

    def flush(self) -> None:
        """Write the waiting rows as a new shard."""
        if self.folder:
            with self._lock:
                self._move()

    def refresh(self) -> None:
        """Open the shards that are not open yet, by their headers."""
        with self._lock:
            self._open_others()

    def _open_others(self) -> None:
        assert self.folder
        known = {shard.name for shard in self._stored.shards} | self._skipped
        # a shard that another process is writing has a hidden name
        paths = [path for path in sorted(self.folder.glob(f"*{SUFFIX}")) if not path.name.startswith(".")]
        _allow_open_files(len(paths))
        opened, num_old = [], 0
        for path in paths:
            if path.name in known:
                continue
            try:
                opened.append(open_shard(path))
            except FileNotFoundError:
                # pruned a moment ago
                continue
            except OldShard:
                num_old += 1
                self._skipped.add(path.name)
            except (BadShard, OSError) as error:
                self._skipped.add(path.name)
                self.notices.append(
                    f"{path}: {error}; skipped, what it held is made again; `aitk cache verify --delete` removes it"
                )
        if num_old:
            self.notices.append(
                f"{self.folder}: {num_old} files in the format of another version are skipped, what they held is made "
                "again; `aitk cache prune` removes them"
            )
        self._add(opened)

    def _move(self) -> None:
        """Make a shard of the waiting rows."""
        self._flushed_at = time.monotonic()
        if not self._waiting:
            return
        packed, name = pack(self._waiting, self.about), secrets.token_hex(12) + SUFFIX
        if self.folder:
            path = self.folder / name
            with writing(self.folder), atomic_path(path) as temporary, temporary.open("wb") as file:
                packed.write(file)
            _allow_open_files(len(self._stored.shards) + 1)
            try:
                shard = open_shard(path)
            except FileNotFoundError:
                # deleted at once: the rows wait on, and are written again with the next ones
                return
        else:
            shard = _in_memory(name, packed)
        self._add([shard])
        self._waiting, self._waiting_bytes = {}, 0

    def _add(self, shards: Sequence[Shard]) -> None:
        if shards:
            ordered = sorted([*self._stored.shards, *shards], key=lambda shard: shard.name)
            self._stored = _Stored(ordered, CacheIndex([shard.keys for shard in ordered]))


def _allow_open_files(count: int) -> None:
    """Ask the system for so many open files: before Python 3.13 a mapped file keeps its descriptor."""
    if resource is None or sys.version_info >= (3, 13):
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + OTHER_FILES
    if soft not in (resource.RLIM_INFINITY, hard) and soft < wanted:
        with suppress(OSError, ValueError):
            limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _in_memory(name: str, packed: Packed) -> Shard:
    """Copy what would be a file into memory."""
    header = packed.header
    file = mmap.mmap(-1, header.num_bytes)
    packed.write(file)
    return Shard(name, header, file)


def _array(keys: Keys) -> np.ndarray:
    return keys if isinstance(keys, np.ndarray) else as_array(keys)


def _copy(name: str, tensor: Tensor) -> Part:
    """A tensor's values on the host, in memory of their own: one row of a batch must not keep all of it alive."""
    if tensor.dtype not in DTYPE_NAMES:
        raise ValueError(f"'{name}': {tensor.dtype} cannot be cached")
    copied = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
    return Kind(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)), _bytes(copied)


def _bytes(tensor: Tensor) -> np.ndarray:
    """The memory of a contiguous tensor, as bytes; numpy does not know every dtype."""
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _tensor(kind: Kind, data: np.ndarray) -> Tensor:
    """Values as a tensor, without copying them."""
    dtype = DTYPES[kind.dtype]
    # torch refuses a buffer without content
    return torch.frombuffer(data, dtype=dtype).view(kind.shape) if data.size else torch.empty(kind.shape, dtype=dtype)
