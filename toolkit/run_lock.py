"""The lock of a run folder: one run at a time writes into it.

The kernel holds the lock, so that of a killed run is gone with it; the text in the file only says who it is.
"""

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SETTLE_S = 1.0
"""How long two that start at once may take to write their names, where nothing but the file decides."""
LEASE_S, PAUSE_S = 120.0, 2.0
"""How long a file server may keep the lock of a machine that is gone (NFSv4: 90 s as a rule), and between two tries."""
_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
_NO_PLACE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EEXIST}


class RunFolderBusy(RuntimeError):
    """Another run is writing into the folder."""


class RunFolderReadOnly(RuntimeError):
    """Nothing can be written into the folder."""


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock file `path` until the block ends; one whose run is gone is taken over."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptors = [_open_locked(path)]
    except OSError as error:
        if error.errno in _NO_PLACE:
            raise RunFolderReadOnly(
                f"{path.parent} cannot be written to ({error.strerror}); make it writable, or name another folder"
            ) from error
        raise

    def close() -> None:
        if descriptors:
            os.close(descriptors.pop())

    if hasattr(os, "register_at_fork"):
        # A data loader's worker would share the lock and keep it a while after this process was killed.
        os.register_at_fork(after_in_child=close)
    try:
        yield
    finally:
        # Unlinked while still locked, except on Windows, where an open file cannot be.
        if os.name == "nt":
            close()
        path.unlink(missing_ok=True)
        close()


def _open_locked(path: Path) -> int:
    """Open and lock the file that is at `path` once the lock is held, or say who holds it."""
    end = time.monotonic() + LEASE_S
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        holder = _read_holder(descriptor)
        if not _try_lock(path, descriptor, holder):
            os.close(descriptor)
            if not _is_last_start(holder):
                raise RunFolderBusy(_busy_message(path, holder))
            # its machine was lost, but not yet to the file server; some keep a lock until that machine is back
            if time.monotonic() > end:
                path.unlink(missing_ok=True)
            time.sleep(PAUSE_S)
            continue
        if not _is_at(path, descriptor):
            # The run before unlinked the file between our open and our lock: this one guards nothing.
            os.close(descriptor)
            continue
        try:
            _write_holder(descriptor)
        except OSError:
            # a full disk; the lock must not outlive this attempt
            os.close(descriptor)
            raise
        return descriptor


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one that `path` names."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return False
        raise


def _try_lock(path: Path, descriptor: int, holder: dict[str, Any]) -> bool:
    """Lock the file if nobody else has."""
    try:
        if os.name == "nt":
            import msvcrt

            # Far behind the text, which others have to be able to read: Windows locks keep readers out.
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems know no locks: what the file says has to do there.
        return error.errno in _UNSUPPORTED and not _is_alive(holder) and _has_written_last(path, descriptor)
    return True


def _has_written_last(path: Path, descriptor: int) -> bool:
    """Whether this process is the one that the file names a moment after several have written: only one is."""
    _write_holder(descriptor)
    os.fsync(descriptor)
    time.sleep(SETTLE_S)
    # opened anew, because a network file system shows the writes of other machines only then
    with path.open("rb") as file:
        found = _parse(file.read())
    return found.get("pid") == os.getpid() and found.get("host") == socket.gethostname()


def _is_alive(holder: dict[str, Any]) -> bool:
    """Whether the run that the file names may still be there; on another host nobody can tell."""
    if not holder:
        return False
    if holder.get("host") != socket.gethostname():
        return not _is_last_start(holder)
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return int(holder["pid"]) != os.getpid()


def _is_last_start(holder: dict[str, Any]) -> bool:
    """Whether the file names the last start of this job, on another machine: a cluster starts it again without that."""
    return bool(_cluster_job()) and holder.get("job") == _cluster_job() and holder.get("host") != socket.gethostname()


def _read_holder(descriptor: int) -> dict[str, Any]:
    """Return what the file says about its run; empty when it says nothing readable."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    return _parse(os.read(descriptor, 4096))


def _parse(text: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) and isinstance(holder.get("pid"), int) else {}


def _write_holder(descriptor: int) -> None:
    """Write who holds the lock, for the message that another run prints."""
    holder: dict[str, Any] = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "job": _cluster_job(),
    }
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(holder).encode())


def _cluster_job() -> str:
    """The batch job that this process belongs to; empty on a machine of one's own."""
    return "-".join(os.environ[name] for name in ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID") if name in os.environ)


def _busy_message(path: Path, holder: dict[str, Any]) -> str:
    """Say which run is in the way and what to do."""
    who = f"process {holder['pid']} on {holder['host']}, since {holder['started']}" if holder else "another process"
    return (
        f"{path.parent} is in use by another run ({who}); stop that one first, or give this run another "
        f"name with --set name=NAME. If no such run exists, remove {path}."
    )
