"""How long a save takes on a cluster, where it has to be done before the time is up."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from toolkit.launch.environment import own_rank
from toolkit.launch.json_files import read_group

FILE = "slurm/longest_save.json"


class SaveTime:
    """Told of each save; says once that they take too long, and keeps the longest for the next submission."""

    def __init__(self, run_folder: Path, lead_s: float, tell: Callable[[str], None]) -> None:
        self.run_folder, self.lead_s, self._tell = run_folder, lead_s, tell
        self._longest, self._has_told = longest_save(run_folder), False

    def __call__(self, seconds: float) -> None:
        """A save took so long."""
        if seconds > self._longest:
            self._longest = seconds
            path = self.run_folder / FILE
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"seconds": round(seconds, 3)}) + "\n", encoding="utf-8")
        if seconds > self.lead_s / 2 and not self._has_told:
            self._has_told = True
            self._tell(
                f"warning: this save took {seconds:.0f} s, and launch.signal_lead_s leaves {self.lead_s:.0f} s to the "
                f"last one before the end of the time; set it to {3 * seconds:.0f}"
            )


def save_time(env: Mapping[str, str], tell: Callable[[str], None] = print) -> SaveTime | None:
    """What times the saves of this process; None where nothing ends it, and for ranks other than the first."""
    if own_rank(env) > 0 or "AITK_SIGNAL_LEAD_S" not in env or "AITK_RUN_FOLDER" not in env:
        return None
    return SaveTime(Path(env["AITK_RUN_FOLDER"]), float(env["AITK_SIGNAL_LEAD_S"]), tell)


def longest_save(run_folder: Path) -> float:
    """Seconds of the longest save of the run so far; 0 if none was timed."""
    try:
        return float(read_group(run_folder / FILE)["seconds"])
    except (ValueError, KeyError, TypeError):
        return 0.0
