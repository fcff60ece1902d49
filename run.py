"""python run.py job.yaml == aitk run job.yaml. Also what the installed command starts: the environment, then the CLI.

The only module that changes the environment of the process.
"""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import sys
from collections.abc import MutableMapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DEFAULTS = {
    "HF_XET_HIGH_PERFORMANCE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "YES",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}


def put_root_first() -> None:
    """Make `toolkit`, `jobs` and `extensions_built_in` mean ours, whatever else is installed under these names."""
    root = str(ROOT)
    sys.path[:] = [root, *(path for path in sys.path if path != root)]


def hide_own_datasets() -> None:
    """Keep transformers from taking our folder `datasets/` for the Hugging Face package of that name."""
    found = None if "datasets" in sys.modules else importlib.util.find_spec("datasets")
    if found is not None and found.origin is None:
        sys.modules["datasets"] = None  # type: ignore[assignment]


def read_env_file(file: Path, env: MutableMapping[str, str]) -> None:
    """Add the KEY=VALUE lines of a .env file to `env`; variables that are set already win."""
    if not file.is_file():
        return
    # other encodings are met in comments
    for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        key, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not key.startswith("#"):
            value = value.strip()
            if value[:1] in {"'", '"'}:
                value = value[1:].partition(value[0])[0]
            else:
                value = value.partition(" #")[0].rstrip()
            env.setdefault(key.strip(), value)


def start(arguments: list[str]) -> int:
    """Set the environment up and run the command line; returns the exit code."""
    put_root_first()
    hide_own_datasets()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # names of files may hold what the terminal's encoding has not, or none has
        sys.stdout.reconfigure(errors="backslashreplace")
    read_env_file(Path(".env"), os.environ)
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
    from toolkit.launch.environment import claim_local_disk, cluster_ranks, on_cluster, stop_signals

    if arguments[:1] == ["run"] and on_cluster(os.environ):
        # heard when something can be done about it: `leaving_when_told` of toolkit/cli/unattended.py
        signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals(os.environ))
    from toolkit.cli.app import run_command_line
    from toolkit.launch.parent import end_with_parent

    end_with_parent(os.environ)
    os.environ.update(cluster_ranks(os.environ))
    claim_local_disk(os.environ)
    return run_command_line(arguments)


if __name__ == "__main__":
    sys.exit(start(["run", *sys.argv[1:]]))
