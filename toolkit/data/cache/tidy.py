"""Clears what killed writers left in a folder of a cache that several programs may be writing to.

Whoever writes holds a shared lock of a file beside the folder; who gets it alone knows that nobody is at work. The
kernel frees the lock of a killed program. Where there are no such locks (Windows, some network disks), `aitk cache
prune` clears up by age.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from toolkit.atomic import remove_leftovers

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Keep `tidy` away while files are written to the folder."""
    with _locked(folder, alone=False):
        yield


def tidy(folder: Path) -> None:
    """Remove the temporary files of the folder, unless somebody is writing one."""
    with _locked(folder, alone=True) as is_alone:
        if is_alone:
            with suppress(OSError):
                remove_leftovers(folder)


@contextmanager
def _locked(folder: Path, alone: bool) -> Iterator[bool]:
    """Whether the lock is held in the block; who wants it alone does not wait for it."""
    descriptor = _open_locked(folder, alone)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open_locked(folder: Path, alone: bool) -> int | None:
    if fcntl is None:
        return None
    if not folder.is_dir():
        return None
    try:
        # not of the folder itself: over NFS that would be known to one machine only
        descriptor = os.open(folder.with_name(f".aitk-lock-{folder.name}"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX | fcntl.LOCK_NB) if alone else fcntl.LOCK_SH)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
