"""Rows of tensors by key, in memory or in append-only safetensors shards that several processes can add to."""

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from toolkit.atomic import atomic_path

Row = Mapping[str, Tensor]
FORMAT = "aitk-rows-1"
SHARD_BYTES = 256 * 2**20
FLUSH_EVERY_S = 60.0


def key_for(**parts: Any) -> str:
    """The key of a row: a hash over everything that the row depends on, given as plain JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


class RowCache:
    """Rows {name: tensor} by key. Without a folder they live in memory only.

    Rows wait in memory until a shard is full, a minute has passed or `flush` is called; then the shard is written under
    a temporary name, synced and renamed: a kill loses only rows that were not flushed. Shards are never changed, so
    processes may write to one folder at once; `refresh` shows what the others have added. Reading maps the shards.
    """

    def __init__(self, folder: Path | None = None, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.shard_bytes = folder, shard_bytes
        self.notices: list[str] = []
        self._waiting: dict[str, dict[str, Tensor]] = {}
        self._waiting_bytes, self._flushed_at = 0, time.monotonic()
        self._shards: dict[str, Any] = {}
        self._stored: dict[str, tuple[str, list[str]]] = {}
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._waiting or key in self._stored

    def __len__(self) -> int:
        return len(self._waiting.keys() | self._stored.keys())

    def get(self, key: str) -> dict[str, Tensor]:
        """The row of a key; KeyError if there is none. Tensors may be views of a mapped file: do not write to them."""
        if key in self._waiting:
            return dict(self._waiting[key])
        shard, names = self._stored[key]
        return {name: self._shards[shard].get_tensor(f"{key}/{name}") for name in names}

    def shapes(self, key: str) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors of a row, without reading them."""
        if key in self._waiting:
            return {name: tuple(tensor.shape) for name, tensor in self._waiting[key].items()}
        shard, names = self._stored[key]
        return {name: tuple(self._shards[shard].get_slice(f"{key}/{name}").get_shape()) for name in names}

    def put(self, key: str, row: Row) -> None:
        """Add a row; a key that is there already keeps its row."""
        assert row and "/" not in key
        if key in self:
            return
        # cloned, so that one row of a batch does not keep the whole batch alive
        kept = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in row.items()}
        self._waiting[key] = kept
        self._waiting_bytes += sum(tensor.nbytes for tensor in kept.values())
        is_due = time.monotonic() - self._flushed_at >= FLUSH_EVERY_S
        if self.folder and (is_due or self._waiting_bytes >= self.shard_bytes):
            self.flush()

    def flush(self) -> None:
        """Write the waiting rows as a new shard."""
        self._flushed_at = time.monotonic()
        if not self.folder or not self._waiting:
            return
        name = f"{secrets.token_hex(12)}.safetensors"
        rows = {f"{key}/{part}": tensor for key, row in self._waiting.items() for part, tensor in row.items()}
        with atomic_path(self.folder / name) as temporary:
            save_file(rows, temporary, metadata={"format": FORMAT})
        self._open(name)
        self._waiting, self._waiting_bytes = {}, 0

    def refresh(self) -> None:
        """Open the shards that are not open yet, by their headers."""
        assert self.folder
        for path in sorted(self.folder.glob("*.safetensors")):
            # a shard that another process is writing has a hidden name
            if path.name not in self._shards and not path.name.startswith("."):
                self._open(path.name)

    def _open(self, name: str) -> None:
        assert self.folder
        path = self.folder / name
        try:
            shard = safe_open(path, framework="pt")
            if (shard.metadata() or {}).get("format") != FORMAT:
                raise ValueError("not written by this program")
        except (SafetensorError, OSError, ValueError) as error:
            self.notices.append(f"{path}: skipped ({error}); what it held is made again")
            return
        self._shards[name] = shard
        for entry in shard.keys():  # noqa: SIM118 (a handle, not a dict)
            key, part = entry.split("/", 1)
            shard_name, parts = self._stored.setdefault(key, (name, []))
            # two processes may have made the same row; the first shard that holds it serves it
            if shard_name == name:
                parts.append(part)
