"""Writing a file or folder whole or not at all; used by everything that a kill must not leave half written."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEMPORARY = re.compile(r"\.aitk-(?P<kind>tmp|old)-(?P<token>[0-9a-f]{12})-(?P<final>.+)", re.DOTALL)


@contextmanager
def atomic_path(final: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of `final` to write a file or a folder to; on success it takes `final`'s place."""
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(final, "tmp")
    try:
        yield temporary
        _sync(temporary)
        _replace(temporary, final)
    except BaseException:
        _remove(temporary)
        raise
    _sync_folder(final.parent)


def write_text(final: Path | str, text: str) -> None:
    """Replace `final` by a UTF-8 file that holds `text`."""
    with atomic_path(final) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed writers left in `folder`, and put back a folder whose replacement was cut short.

    With `name`: of writers of that file or folder alone, where others may be at work beside it.
    """
    for entry in list(folder.iterdir()) if folder.is_dir() else []:
        match = _TEMPORARY.fullmatch(entry.name)
        if match is None or name not in (None, match["final"]):
            continue
        final = folder / match["final"]
        if match["kind"] == "old" and not final.exists():
            os.replace(entry, final)
        else:
            _remove(entry)


def _sibling(final: Path, kind: str) -> Path:
    """Name a hidden neighbor of `final`; the suffix stays last because some writers choose the format by it."""
    return final.with_name(f".aitk-{kind}-{secrets.token_hex(6)}-{final.name}")


def _replace(temporary: Path, final: Path) -> None:
    """Rename over `final`; a folder in the way is set aside first, as no system call replaces a full one."""
    if not temporary.is_dir() or not final.is_dir():
        os.replace(temporary, final)
        return
    aside = _sibling(final, "old")
    os.replace(final, aside)
    os.replace(temporary, final)
    _remove(aside)


def _sync(path: Path) -> None:
    """Force a file, or every file and folder below a folder, onto the disk."""
    if not path.is_dir():
        # r+ and not r: Windows flushes only what is open for writing.
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        return
    for child in path.iterdir():
        _sync(child)
    _sync_folder(path)


def _sync_folder(folder: Path) -> None:
    """Force a folder's names onto the disk, without which a rename can be lost with the power."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network file systems refuse to sync a folder; the rename itself stays atomic there.
        pass
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a file or a folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
