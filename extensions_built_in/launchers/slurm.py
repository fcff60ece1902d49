"""`launch: {type: slurm}`: writes the run folder, the resolved config and a batch script, and submits it."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from extensions_built_in.launchers.batch import Work, make_script
from extensions_built_in.launchers.origins import describe_environment, find_patch
from extensions_built_in.launchers.refusals import explain
from toolkit.atomic import write_text
from toolkit.config.explain import to_yaml
from toolkit.launch.json_files import add_line
from toolkit.launch.launcher import Array, Order
from toolkit.launch.limits import seconds_of
from toolkit.launch.queue import Queue
from toolkit.launch.record import SUBMISSIONS, run_folder, submissions
from toolkit.launch.requeue import forget_starts
from toolkit.launch.save_time import longest_save
from toolkit.launch.script import Script, Shell
from toolkit.launch.slurm import SlurmError, start_estimate, submit, submitted

if TYPE_CHECKING:
    from extensions_built_in.launchers.config import Slurm
    from jobs import Job

FAILED = 1
INDEX = "${SLURM_ARRAY_TASK_ID}"
UNWRITABLE = ("\\", "\n", "${")
"""What the path of a folder cannot have: sbatch and the shell of the job read something else in it."""


class SlurmJob:
    """One job on a cluster, or the runs of a sweep as one array of them."""

    hands_over = True

    def __init__(self, config: Slurm, job: Job) -> None:
        self.config, self.job = config, job
        self.job_id = ""

    def plan(self, order: Order) -> list[str]:
        """The script that would be submitted."""
        script = self._folder(order) / "submit.sbatch"
        command = shlex.join(["sbatch", "--parsable", *self._options(order), str(script)])
        return [
            *filter(None, [self._misnamed(order)]),
            *self._warnings(order),
            f"would write {script} and call `{command}`:",
            "",
            *self._text(order).splitlines(),
        ]

    def start(self, order: Order) -> int:
        """Write the files, submit, and say where to look."""
        folder, options = self._folder(order), self._options(order)
        if reason := self._misnamed(order) or ("" if order.test_only else self._busy(order)):
            print(f"job '{self._name(order)}' was not submitted: {reason}", file=sys.stderr)
            return FAILED
        for warning in self._warnings(order):
            print(warning, file=sys.stderr)
        try:
            if order.test_only:
                with TemporaryDirectory() as place:
                    script = Path(place, "submit.sbatch")
                    script.write_text(self._text(order), encoding="utf-8")
                    print(start_estimate(script, options))
                return 0
            script = folder / "submit.sbatch"
            write_text(script, self._text(order))
            self._write_beside(folder, order)
            if not order.wait:
                self._announce(folder, order, submit(script, options))
                return 0
            with submitted(script, options) as (job_id, wait):
                self._announce(folder, order, job_id)
                return wait()
        except SlurmError as error:
            said = [f"job '{self._name(order)}' was not submitted: {error}", *explain(str(error), self.job.document)]
            print("\n".join(said), file=sys.stderr)
            return FAILED

    def _misnamed(self, order: Order) -> str:
        """Why no batch script can name the folder of the results; "" if one can."""
        folder = self._folder(order).parent
        if not any(sign in str(folder) for sign in UNWRITABLE):
            return ""
        return f"a batch script cannot name the folder {str(folder)!r}; rename it: no \\, no line break, no ${{"

    def _busy(self, order: Order) -> str:
        """Which job waits to do this run or does it, so that another one would fail; "" if this one is to wait too."""
        if order.array is not None or order.depends_on or self.config.dependency:
            return ""
        queue, folder = Queue(), run_folder(self.job)
        for entry in submissions(folder):
            if (found := queue.at_hand(entry["job_id"])) is not None:
                return (
                    f"SLURM job {found.job_id} is there for {folder} already ({found.state}); `aitk cancel {folder}` "
                    "stops it, --set name=NAME gives this run another name, launch.dependency has it wait"
                )
        return ""

    def _announce(self, folder: Path, order: Order, job_id: str) -> None:
        """Write down what was submitted, and say where its log is."""
        self.job_id = job_id
        log = folder / (f"slurm-{job_id}_%a.out" if order.array else f"slurm-{job_id}.out")
        command = ["sbatch", *self._options(order), str(folder / "submit.sbatch")]
        entry = {"job_id": job_id, "time": time.time(), "command": command, "log": str(log)}
        add_line(folder.parent / SUBMISSIONS, entry)
        shown = str(log).replace("%a", "INDEX")
        print(f"job '{self._name(order)}' is SLURM job {job_id}; log: {shown}", flush=True)

    def script(self, order: Order) -> Script:
        """What is submitted."""
        return make_script(self.config, self._work(order), self.job)

    def _work(self, order: Order) -> Work:
        array = order.array
        if array is None:
            own = run_folder(self.job).absolute()
            return Work(
                self.job.name, own / "slurm", _resumed(order.command, str(own / "slurm" / "config.yaml")), str(own)
            )
        run = f"{array.folder.absolute()}/{INDEX}"
        own_folder = Shell(f"{run}/{array.inside}".rstrip("/"))
        command = _resumed(order.command, Shell(f"{run}/{array.config}"))
        return Work(array.name, array.folder.absolute() / "slurm", command, own_folder, tuple(array.indices))

    def _write_beside(self, folder: Path, order: Order) -> None:
        """The config, and what it was started with."""
        if order.array is None:
            write_text(folder / "config.yaml", to_yaml(self.job))
        for own in _run_folders(folder.parent, order.array):
            forget_starts(own)
        write_text(folder / "env.txt", self.job.document.mask(describe_environment(os.environ)))
        patch = find_patch()
        if patch:
            write_text(folder / "git.patch", self.job.document.mask(patch))
        else:
            (folder / "git.patch").unlink(missing_ok=True)

    def _warnings(self, order: Order) -> list[str]:
        """What is likely to go wrong, by what an earlier start has measured."""
        limit = seconds_of(self.config.time) if self.config.time else None
        longest = max((longest_save(own) for own in _run_folders(self._folder(order).parent, order.array)), default=0.0)
        if limit is not None and longest >= limit:
            return [f"warning: launch.time gives {limit} s to a start, but a save has taken {longest:.0f} s"]
        if longest > self.config.signal_lead_s / 2:
            return [
                f"warning: a save has taken {longest:.0f} s, and launch.signal_lead_s leaves "
                f"{self.config.signal_lead_s}; {3 * longest:.0f} would be safe"
            ]
        return []

    def _folder(self, order: Order) -> Path:
        return self._work(order).folder

    def _name(self, order: Order) -> str:
        return self._work(order).name

    def _text(self, order: Order) -> str:
        return self.script(order).text()

    def _options(self, order: Order) -> list[str]:
        """Options of this submission. One on the command line would replace that of the script, so both are in it."""
        own = self.config.dependency
        return [
            f"{option},{own}" if own and option.startswith("--dependency=") else option for option in order.depends_on
        ]


def _resumed(command: Sequence[str], config: str) -> list[str]:
    """The command of a task: that of the order with the resolved config, and without what that has in it."""
    python, program, *rest = command
    kept = rest[rest.index("--log") :][:2] if "--log" in rest else []
    return [python, program, config, *kept]


def _run_folders(folder: Path, array: Array | None) -> list[Path]:
    return [folder] if array is None else [folder / str(index) / array.inside for index in array.indices]
