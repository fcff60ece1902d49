"""Copies of shards on the disk of this machine, where the cache is on a slow network disk.

Shards are never changed, so a copy is made once per machine by the first process that wants it, under a lock of the
local disk, and is right for as long as it lies there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from toolkit.atomic import atomic_path

VARIABLE = "AITK_STAGE"
"""The folder for copies; `launch.stage_caches` sets it."""
KEPT_FREE = 0.1
"""Of the local disk: what others on the machine need."""


def staged(path: Path, env: Mapping[str, str] = os.environ) -> Path:
    """The copy of a shard on the disk of this machine; `path` itself where none is wanted, or there is no room."""
    place = env.get(VARIABLE, "").strip()
    if not place:
        return path
    folder = Path(place)
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16] + f"-{path.name}"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        size = path.stat().st_size
        with (folder / f"{name}.lock").open("w") as lock:
            _hold(lock.fileno())
            copy = folder / name
            if copy.exists() and copy.stat().st_size == size:
                return copy
            disk = shutil.disk_usage(folder)
            if disk.free - size < KEPT_FREE * disk.total:
                return path
            with atomic_path(copy) as temporary:
                shutil.copyfile(path, temporary)
            return copy
    return path


def _hold(descriptor: int) -> None:
    """Wait for the lock, which closing the file lets go of; without locks two may copy, to the same end."""
    if os.name != "nt":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
