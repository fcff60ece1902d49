"""Where caches live: never in the user's data folder."""

import os
from collections.abc import Mapping
from pathlib import Path

NAME = ".aitk_cache"


def cache_root(run_path: Path, env: Mapping[str, str]) -> Path:
    """`$AITK_CACHE`, or `.aitk_cache` beside the run folder, so that all runs of one training folder share it."""
    return _chosen(env) or run_path.parent / NAME


def make_writable(folder: Path) -> None:
    """Make the folder of a cache, if it is not there. Raises ValueError that says what to do if it cannot be used."""
    reason = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
    if not reason and not os.access(folder, os.W_OK):
        reason = "not writable"
    if reason:
        raise ValueError(
            f"the cache folder {folder} cannot be used ({reason}); set AITK_CACHE to a folder that can be written to"
        )


def find_caches(here: Path, env: Mapping[str, str]) -> list[Path]:
    """The caches of somebody who works in `here`: `$AITK_CACHE`, or those beside runs, in `output` as a rule."""
    chosen = _chosen(env)
    if chosen:
        return [chosen] if chosen.is_dir() else []
    return sorted(path for pattern in (NAME, f"*/{NAME}", f"output/*/{NAME}") for path in here.glob(pattern))


def _chosen(env: Mapping[str, str]) -> Path | None:
    text = env.get("AITK_CACHE", "").strip()
    return Path(text).expanduser() if text else None
