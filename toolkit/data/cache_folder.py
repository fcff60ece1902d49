"""Where caches live: never in the user's data folder."""

from collections.abc import Mapping
from pathlib import Path


def cache_root(run_path: Path, env: Mapping[str, str]) -> Path:
    """`$AITK_CACHE`, or `.aitk_cache` beside the run folder, so that all runs of one training folder share it."""
    chosen = env.get("AITK_CACHE", "").strip()
    return Path(chosen).expanduser() if chosen else run_path.parent / ".aitk_cache"
