"""Kills a short training again and again, lets it go on to its end, and compares the end with that of a run in peace.

    python scripts/torture.py
    python scripts/torture.py --kills 20 --seed 7 --keep-going

Each round starts anew, kills one to four times by SIGKILL, and then lets the run finish. The moments are drawn evenly
over the phases of a run, so that the short ones are hit as well (`torture_child.py` counts moments); every fifth kill
comes at a time on the clock instead, wherever the run happens to be; a few are of programs of their own, `python
run.py`, which all others, copies of one process that has imported everything, stand for.

A kill is lost if the run could not go on, went on from an earlier step than that of its last save, or left a file that
is not whole. A round is different if one bit of weights, optimizer, samples or logged losses at the end is not as in
the run in peace, or if there is a file more or less.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]
# This clone's datasets/ folder is not the library of that name, which transformers would believe to be installed.
sys.modules["datasets"] = None  # type: ignore[assignment]
# one thread of each library, so that the process can be copied
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")

import argparse
import contextlib
import gc
import importlib
import json
import random
import shutil
import signal
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory

from torture_child import NAMES, Kill, Run, random_kill, shared
from torture_end import damage, differences, end_of_run
from torture_training import SAVE_EVERY, config_for, make_inputs

from jobs import get_job

BY_CLOCK = 0.2
"""The share of kills at a time on the clock."""
APART_EVERY = 50
"""One kill in so many is of a program of its own."""
LONGEST_S = 600.0
FAILS, HANGS = 70, 71
"""Exit codes of a run that raised an error, and of one that had to be ended."""


@dataclass
class Score:
    """What has happened so far."""

    kills: int = 0
    rounds: int = 0
    lost: int = 0
    different: int = 0
    where: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)

    def note(self, kind: str, text: str) -> None:
        """Count something bad, and say it at once."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.told.append(text)
        print(f"{kind.upper()}: {text}", flush=True)


class Torture:
    """A folder for the runs, and the processes that do them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.output, self.log = folder, folder / "output", folder / "log.txt"
        self.config, self.told, self.score = config_for(folder), shared(), Score()
        self.rng = random.Random(seed)
        self.seconds = self.program_s = 0.0  # of a run in peace, in a copy of this process and by the command line
        (folder / "config.json").write_text(json.dumps(self.config))
        self._apart(lambda: make_inputs(folder))

    # -- processes ------------------------------------------------------------------------------------------------

    def run(self, kill: Kill | None = None, after_s: float | None = None) -> int:
        """One start of the run, in a copy of this process; its exit code, negative if it was killed."""
        self.told.clear()
        return self._apart(lambda: Run(self.told, self.output, kill).go(self.config, self.log), after_s)

    def _apart(self, work: Callable[[], int], after_s: float | None = None) -> int:
        child = os.fork()
        if child == 0:
            code = FAILS
            try:
                code = work()
            except BaseException:  # a copy may not go on with what its parent was about to do
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        return _wait(child, after_s)

    def run_program(self, after_s: float | None) -> int:
        """The same by the command line."""
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "run.py"), str(self.folder / "config.json")], stdout=log, stderr=log
            )
        code = _wait(process.pid, after_s)
        process.returncode = code
        return code

    # -- rounds ---------------------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Do the run in peace, twice: the first shows how it ends, the second that it ends so again."""
        self._anew()
        if self._apart(self._list_modules) != 0:
            sys.exit(f"the run fails even in peace:\n{self.log.read_text()}")
        for name in (self.folder / "modules.txt").read_text().splitlines():
            with contextlib.suppress(ImportError, AttributeError):
                importlib.import_module(name)
        # parts of models are freed by collecting garbage, which is quick if it need not look at the imported libraries
        get_job(self.config)
        with contextlib.suppress(Exception):  # a table that transformers makes once, of which it takes a second
            importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("t5")
        gc.freeze()
        assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be copied"
        self._anew()
        self.run()
        self.wanted = end_of_run(self.output / "run", self.output / ".aitk_cache")
        self.phases = list(self.told.phases[: self.told.moments])
        self._anew()
        start = time.monotonic()
        self.run()
        self.seconds = time.monotonic() - start
        self.among = sorted(set(self.phases))
        if found := differences(self.wanted, end_of_run(self.output / "run", self.output / ".aitk_cache")):
            sys.exit(f"two runs in peace are not the same: {found}")

    def _list_modules(self) -> int:
        """Do the run, and note what it imports: when its parent has done that, its other copies start sooner."""
        known = set(sys.modules)
        code = Run(self.told, self.output, None).go(self.config, self.log)
        (self.folder / "modules.txt").write_text("\n".join(sorted(set(sys.modules) - known)))
        return code

    def round(self, kills: int) -> None:
        """One run, killed so often and then let go on to its end."""
        self._anew()
        self.score.rounds += 1
        bad = self.score.lost
        saved = 0
        for number in range(kills):
            is_apart = (self.score.kills + 1) % APART_EVERY == 0
            code, what = self._strike(number > 0, is_apart)
            if not is_apart:
                self._check_start(saved, what)
            if code != -signal.SIGKILL:
                if code != 0:
                    self.score.note("lost", f"it ended with exit code {code} {what}:\n{self._last_lines()}")
                break
            self.score.kills += 1
            self.score.where["a program of its own, by the clock" if is_apart else what] += 1
            saved = saved if is_apart else max(saved, self.told.saved)
            if problem := damage(self.output / "run", self.output / ".aitk_cache"):
                self.score.note("lost", f"after a kill {what}: {problem}")
        if code != 0:
            code = self.run()
            self._check_start(saved, "at the end")
        if code != 0:
            self.score.note("lost", f"it could not go on, exit code {code}:\n{self._last_lines()}")
        if self.score.lost > bad:
            return
        found = differences(self.wanted, end_of_run(self.output / "run", self.output / ".aitk_cache"))
        if found:
            self.score.note("different", f"{found} (the last kill was {what})")

    def _strike(self, is_resumed: bool, is_apart: bool) -> tuple[int, str]:
        """Start the run and kill it; returns its exit code, and where it was."""
        begin = time.monotonic()
        if is_apart:
            code = self.run_program(self.rng.uniform(0.3, 1) * self.program_s)
            if code == 0:  # the machine is less busy than it was
                self.program_s = time.monotonic() - begin
            return code, "of a program of its own"
        if self.rng.random() < BY_CLOCK:
            code = self.run(after_s=self.rng.random() * self.seconds)
            if code == 0 and not is_resumed:
                self.seconds = time.monotonic() - begin
        else:
            kill = random_kill(self.phases, self.among, self.rng)
            if is_resumed:  # it has fewer moments, and others
                kill = Kill(self.rng.randrange(len(self.phases) // 2), kill.torn)
            code = self.run(kill)
        return code, NAMES[self.told.phase]

    def _check_start(self, saved: int, what: str) -> None:
        """Compare the step from which a start went on with the last save before it."""
        if 0 <= self.told.start < saved:
            self.score.note("lost", f"step {saved} was saved, but it went on from {self.told.start} ({what})")
        if self.told.saved >= 0 and self.told.done - max(self.told.saved, self.told.start) > SAVE_EVERY:
            self.score.note("lost", f"{self.told.done} steps were done, {self.told.saved} saved ({what})")

    def _anew(self) -> None:
        shutil.rmtree(self.output, ignore_errors=True)
        self.log.write_text("")

    def _last_lines(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])

    def measure_program(self) -> None:
        """How long a program of its own takes."""
        self._anew()
        start = time.monotonic()
        code = self.run_program(None)
        self.program_s = time.monotonic() - start
        found = differences(self.wanted, end_of_run(self.output / "run", self.output / ".aitk_cache"))
        if code or found:
            sys.exit(f"a program of its own ends otherwise (exit code {code}): {found}\n{self._last_lines()}")


def _wait(child: int, after_s: float | None) -> int:
    """The exit code of a child, which is killed after some seconds; one that hangs, after many."""
    end = time.monotonic() + (LONGEST_S if after_s is None else after_s)
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            return HANGS if after_s is None else os.waitstatus_to_exitcode(status)
        time.sleep(0.002)


def main() -> int:
    """Do it all; 0 if nothing was lost and nothing different."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="so many in all (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="which moments (default: 0)")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first loss or difference")
    parser.add_argument("--folder", type=Path, help="an empty or new folder to work in, kept; default: a temporary one")
    options = parser.parse_args()
    begin = time.monotonic()
    with TemporaryDirectory(prefix="aitk-torture-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        torture = Torture(folder, options.seed)
        score = torture.score
        torture.measure()
        print(f"a run in peace takes {torture.seconds:.1f} s and has {len(torture.phases)} moments", flush=True)
        if options.kills >= APART_EVERY:
            torture.measure_program()
            print(f"a program of its own takes {torture.program_s:.1f} s, to the same end", flush=True)
        next_told = 25
        while score.kills < options.kills:
            torture.round(min(torture.rng.choice([1, 2, 3, 4]), options.kills - score.kills))
            if score.kills >= next_told:
                print(f"{score.kills} kills after {time.monotonic() - begin:.0f} s", flush=True)
                next_told = score.kills + 25
            if score.told and not options.keep_going:
                break
    print("\nkilled", *(f"{count:5d}  in: {name}" for name, count in score.where.most_common()), sep="\n")
    print(f"{score.rounds} runs brought to their end in {time.monotonic() - begin:.0f} s")
    print(f"{score.kills} kills, {score.lost} lost, {score.different} different")
    return 1 if score.told else 0


if __name__ == "__main__":
    sys.exit(main())
