"""How long it takes until something happens: the help, a check of a config, the first step of a run.

    python scripts/bench_startup.py

Every command is a new process, as a user starts it; each time is the median of several starts.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
AITK = [sys.executable, str(ROOT / "scripts" / "aitk.py")]


def seconds_until_end(arguments: Sequence[str]) -> float:
    """How long a command takes."""
    begin = time.perf_counter()
    done = subprocess.run([*AITK, *arguments], cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        sys.exit(f"aitk {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
    return seconds


def seconds_until_first_step(config: str, overrides: Sequence[str]) -> float:
    """How long it takes from the start of a run, without any cache, until its first step is done and shown."""
    with TemporaryDirectory() as folder:
        settings = ["train.steps=1", "train.disable_sampling=true", f"training_folder={folder}", *overrides]
        arguments = ["run", config, *(part for setting in settings for part in ("--set", setting))]
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "AITK_CACHE": folder}
        begin = time.perf_counter()
        process = subprocess.Popen(
            [*AITK, *arguments], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        lines, seconds = [], 0.0
        for line in process.stdout:
            lines.append(line)
            if line.startswith("step 1/") and not seconds:
                seconds = time.perf_counter() - begin
        if process.wait() or not seconds:
            sys.exit(f"aitk {' '.join(arguments)}:\n{''.join(lines)}")
    return seconds


def main() -> None:
    """Read the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="config/examples/quickstart.yaml", help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="starts of each command (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the config")
    chosen = parser.parse_args()
    overrides = [part for setting in chosen.set for part in ("--set", setting)]
    tasks: dict[str, Callable[[], float]] = {
        "aitk --help": lambda: seconds_until_end(["--help"]),
        f"aitk check {chosen.config}": lambda: seconds_until_end(["check", chosen.config, *overrides]),
        f"aitk run {chosen.config}, first step": lambda: seconds_until_first_step(chosen.config, chosen.set),
    }
    for name, task in tasks.items():
        print(f"{name:60} {median(task() for _ in range(chosen.repeats)):6.2f} s", flush=True)


if __name__ == "__main__":
    main()
