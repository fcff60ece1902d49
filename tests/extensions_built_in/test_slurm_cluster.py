"""Jobs on a real SLURM cluster of two nodes: the time limit, cancelling, a lost node, two nodes that train together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import cluster, why_not

ROOT = Path(__file__).resolve().parents[2]
SRUN_ENV = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
QUICK_START = ROOT / "config/examples/quickstart.yaml"
NUM_STEPS = 32
SHORT = (
    f"train.steps={NUM_STEPS}",
    "train.disable_sampling=true",
    "save.dtype=fp32",
    "logging.log_every=1",
    "device=cpu",
)
SUBMITTED = re.compile(r"job '.*' is SLURM job (\d+); log: (.*)")
SETTLED = 8
"""Looks at a job that have to agree, almost a second."""
PATIENCE_S = 240
pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is a cluster")

PYPROJECT = """
[project]
name = "counting"
[project.entry-points."aitk.processes"]
counting = "counting.config:Counting"
"""
COUNTING = '''
"""A trainer that learns nothing, without torch: it counts, saves where it is, and stops as trainers do."""

import atexit
import os
import signal
import time
from pathlib import Path
from typing import ClassVar, Literal

from jobs import Stopped
from toolkit.config.plugins import ProcessPlugin
from toolkit.config.section import works
from toolkit.run_folder import RunFolder
from toolkit.training.stop import StopFlag


class Counting(ProcessPlugin):
    """Counts."""

    type: Literal["counting"]
    shares_out: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    training_folder: str = works(..., "Where to.")
    steps: int = works(10, "Until when.")
    pause_s: float = works(0.0, "Before the first step.")

    def build(self, job):
        return Count(self, self.name or job.name)


class Count:
    def __init__(self, config, name):
        self.config, self.folder = config, RunFolder(Path(config.training_folder, name), name)

    def run(self):
        rank = int(os.environ.get("RANK", "0"))
        local = Path(os.environ["AITK_LOCAL"])
        step = max((saved.step for saved in self.folder.checkpoints()), default=0)
        print(f"resumed at {step}, pid {os.getpid()}", flush=True)
        time.sleep(self.config.pause_s)
        with self.folder.lock() if rank == 0 else StopFlag(), StopFlag() as stop:
            local.mkdir(parents=True, exist_ok=True)
            (local / f"rank-{rank}").touch()
            while step < self.config.steps and not stop.requested:
                time.sleep(0.1)
                step += 1
                print(f"step {step}", flush=True)
            if rank == 0:
                self.folder.record(step, [])
        if step < self.config.steps:
            raise Stopped(f"saved at step {step}")
        # the time may be up when all is done
        atexit.register(os.kill, os.getpid(), signal.SIGUSR2)
'''


@dataclass
class Site:
    """A cluster, and how to work with it."""

    folder: Path
    env: dict[str, str]

    def call(self, *command: str) -> str:
        done = subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(
        self, name: str, process: dict[str, Any], *options: str, sweep: Any = None, **launch: Any
    ) -> tuple[str, Path]:
        """Submit a counting process by the command line; job id and log."""
        launch = {"type": "slurm", "gpus_per_node": 0, "time": "30", "env": SRUN_ENV, **launch}
        process = {"type": "counting", "training_folder": str(self.folder / "output"), **process}
        config = {"name": name, "launch": launch, "process": [process], **({"sweep": sweep} if sweep else {})}
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps({"job": "extension", "config": config}), encoding="utf-8")
        return self.submit_file(file, *options)

    def submit_file(self, file: Path, *options: str) -> tuple[str, Path]:
        """Submit a config by the command line; job id and log."""
        printed = self.call(sys.executable, str(ROOT / "run.py"), str(file), *options)
        found = SUBMITTED.fullmatch(printed.strip().splitlines()[-1])
        assert found is not None, printed
        return found[1], Path(found[2])

    def program(self, name: str, text: str) -> str:
        """Write a program that jobs find before others of its name; the line of the shell that has them do so."""
        program = self.folder / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
        return f'export PATH="{program.parent}:$PATH"'

    def show(self, job_id: str) -> dict[str, str]:
        words = self.call("scontrol", "show", "job", "--oneliner", job_id).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def until_logged(self, log: Path, text: str, times: int = 1) -> str:
        self.until(
            lambda: log.exists() and log.read_text().count(text) >= times, lambda: f"no '{text}' in\n{read(log)}"
        )
        return read(log)

    def until_ended(self, job_id: str, log: Path, for_good: bool = False) -> str:
        """Wait for the end, through all starts, without the two minutes that SLURM lets pass between two.

        `for_good`: cancel what waits for another start instead.
        """
        go_on = ["scancel", job_id] if for_good else ["scontrol", "update", f"JobId={job_id}", "StartTime=now"]
        seen: list[str] = []

        def has_ended() -> bool:
            """Judged by what stays: SLURM shows other states while it clears a start away."""
            shown = self.show(job_id)
            seen.append(f"{shown['JobState']} {shown['Restarts']}")
            if len(seen) < SETTLED or len(set(seen[-SETTLED:])) > 1:
                return False
            if shown["JobState"] == "PENDING" and shown["Restarts"] != "0":
                # refused if it has just begun
                subprocess.run(go_on, env=self.env, capture_output=True, timeout=60, check=False)
                seen.clear()
            return shown["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

        self.until(has_ended, lambda: f"{self.show(job_id)}\n{read(log)}")
        return self.show(job_id)["JobState"]

    def until(self, is_so: Callable[[], bool], failure: Callable[[], str], pause: float = 0.1) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < end, failure()
            time.sleep(pause)

    def begins_to_train(self, job_id: str, log: Path, name: str) -> bool:
        """Whether the trainer has done some steps; not if its time was up before, and then the job is over."""
        metrics = self.folder / "output" / name / "metrics.jsonl"
        told = ("stopping: ", "was interrupted")
        self.until(
            lambda: '"step": 2,' in read(metrics) or any(each in read(log) for each in told),
            lambda: f"{self.show(job_id)}\n{read(log)}",
            pause=0.02,
        )
        if '"step": 2,' in read(metrics):
            return True
        # it has just asked for another start, before which SLURM lets two minutes pass
        self.until_ended(job_id, log, for_good=True)
        return False

    def record(self, name: str) -> dict[str, Any]:
        """What the run tells those who watch it."""
        return dict(json.loads((self.folder / "output" / name / "status.json").read_text()))

    def metrics(self, name: str) -> list[dict[str, float]]:
        """All that was measured in each step, but for the time of day."""
        lines = (self.folder / "output" / name / "metrics.jsonl").read_text().splitlines()
        return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]

    def weights(self, name: str) -> tuple[dict[str, Any], bytes]:
        """Names and places of the tensors in the final file, and all their bytes."""
        held = (self.folder / "output" / name / f"{name}.safetensors").read_bytes()
        begin = 8 + int.from_bytes(held[:8], "little")
        header = json.loads(held[8:begin])
        return {key: value for key, value in header.items() if key != "__metadata__"}, held[begin:]

    def step(self, name: str) -> int:
        listed = json.loads((self.folder / "output" / name / "checkpoints.json").read_text())["checkpoints"]
        return int(max(entry["step"] for entry in listed))


def read(log: Path) -> str:
    return log.read_text() if log.exists() else "nothing"


def steps_in(log: Path) -> list[int]:
    """What a counting process has done, in this order."""
    return [int(line.split()[1]) for line in read(log).splitlines() if line.startswith("step ")]


@contextmanager
def held(pid: int) -> Iterator[None]:
    """A process does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def is_told(pid: int, number: int) -> bool:
    """Whether a signal waits for a process that is held."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("ShdPnd:")[2].split()[0], 16) >> (number - 1) & 1)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    package = folder / "extensions" / "counting" / "counting"
    package.mkdir(parents=True)
    (package.parent / "pyproject.toml").write_text(PYPROJECT)
    (package / "__init__.py").touch()
    (package / "config.py").write_text(COUNTING)
    (folder / "cluster").mkdir()
    with cluster(folder / "cluster") as env:
        own = {"AITK_EXTENSIONS": str(folder / "extensions"), "XDG_CONFIG_HOME": str(folder), "OMP_NUM_THREADS": "1"}
        own |= {"SLURM_TMPDIR": str(folder / "local")}
        yield Site(folder, {**env, **own})


def test_two_nodes_train_the_quick_start_beyond_a_limit_of_one_minute_as_two_processes_do_in_one_go(site: Site) -> None:
    # the first one here: SLURM looks at its clock every half minute, and has just begun, so this start gets almost all
    # of the minute before it is told to stop
    where = f"process.0.training_folder={site.folder / 'output'}"
    options = [f"--set={key}" for key in (where, *SHORT)]
    slurm = [f"--set=launch.{key}" for key in ("type=slurm", "nodes=2", "gpus_per_node=0", "signal_lead_s=1")]
    removes = site.program("rm", f'echo "$SLURMD_NODENAME" "$@" >> {site.folder}/removed; exec /bin/rm "$@"')
    slurm += [f"--set=launch.env={json.dumps(SRUN_ENV)}", f"--set=launch.setup={json.dumps([removes])}"]
    for minutes in (1, 2, 4):  # a slow machine needs longer to get to its first steps
        job_id, log = site.submit_file(QUICK_START, *options, *slurm, f"--set=launch.time={minutes}")
        if site.begins_to_train(job_id, log, "quickstart"):
            break
    first = site.record("quickstart")["pid"]
    whole = [sys.executable, str(ROOT / "run.py"), str(QUICK_START), *options, "--set=name=whole", "--gpus=2"]
    with subprocess.Popen(whole, env=site.env, cwd=ROOT, stdout=subprocess.DEVNULL) as uninterrupted:
        # so that a fast machine is not done before its time is up; the other process waits for this one
        with held(first):
            site.until(lambda: "stopping: " in read(log) or is_told(first, signal.SIGUSR2), lambda: read(log))
            assert site.show(job_id)["TimeLimit"] == f"00:0{minutes}:00"
            # what is left may take its time
            site.call("scontrol", "update", f"JobId={job_id}", "TimeLimit=30")
        assert site.until_ended(job_id, log) == "COMPLETED", read(log)
        assert uninterrupted.wait(PATIENCE_S) == 0
    text, shown = read(log), site.show(job_id)
    assert "2 processes take each step together" in text and shown["NumNodes"] == "2"
    assert shown["Restarts"] == "1" and "the job is started again and goes on there" in text
    # nothing is lost, nothing is done twice
    (stopped,) = re.findall(r"saved at step (\d+)", text)
    assert f"resumed exactly at step {stopped}\n" in text
    steps = site.metrics("quickstart")
    assert [each["step"] for each in steps] == list(range(1, NUM_STEPS + 1))
    assert steps == site.metrics("whole")
    assert site.weights("quickstart") == site.weights("whole")
    # what is on the disk of each machine is gone
    removed = {f"{node} -rf {site.folder}/local/aitk-{job_id}" for node in ("n1", "n2")}
    assert removed <= set((site.folder / "removed").read_text().splitlines())


def test_a_cancelled_job_saves_and_does_not_come_back(site: Site) -> None:
    # without the removal of what is on local disks at the end of the script, which runs on the first machine
    job_id, log = site.submit("cancelled", {"steps": 999}, nodes=2, setup=["trap - EXIT"])
    site.until_logged(log, "step 3")
    site.until(lambda: len(list((site.folder / "local").glob("*/rank-*"))) == 2, lambda: read(log))
    site.call("scancel", job_id)
    assert site.until_ended(job_id, log) == "CANCELLED"
    text = site.until_logged(log, "the job is not started again: SLURM has ended it")
    assert text.count("was stopped: saved at step") == 1
    assert site.step("cancelled") >= 3 and site.show(job_id)["Restarts"] == "0"
    assert not list((site.folder / "local").iterdir())


def test_without_progress_there_is_no_other_start(site: Site) -> None:
    job_id, log = site.submit("stuck", {"pause_s": 600})
    site.until_logged(log, "resumed at 0")
    site.call("scancel", "--signal=USR2", job_id)
    assert site.until_ended(job_id, log) == "FAILED"
    assert "the job is not started again: this start made no progress" in read(log)
    assert site.show(job_id)["ExitCode"] == "75:0"


def test_where_a_job_may_not_be_started_again_it_goes_on_as_another_one(site: Site) -> None:
    job_id, log = site.submit("forbidden", {"steps": 40})
    site.until_logged(log, "step 3")
    site.call("scontrol", "update", f"JobId={job_id}", "Requeue=0")
    site.call("scancel", "--signal=USR2", job_id)
    assert site.until_ended(job_id, log) == "FAILED"
    (second,) = [line for line in read(log).splitlines() if "it goes on as job " in line]
    second_id = second.partition("it goes on as job ")[2].split()[0]
    second_log = log.with_name(f"slurm-{second_id}.out")
    assert site.until_ended(second_id, second_log) == "COMPLETED", read(second_log)
    assert "resumed at 0" not in read(second_log) and site.step("forbidden") == 40
    listed = (log.parent / "jobs.jsonl").read_text().splitlines()
    assert [json.loads(line)["job_id"] for line in listed] == [job_id, second_id]


def test_test_only_asks_when_it_would_start(site: Site) -> None:
    file = site.folder / "asked.json"
    launch = {"type": "slurm", "gpus_per_node": 0, "time": "30"}
    process = {"type": "counting", "training_folder": str(site.folder / "output")}
    config = {"name": 'a "b" #c', "launch": launch, "process": [process]}
    file.write_text(json.dumps({"job": "extension", "config": config}), encoding="utf-8")
    command = [sys.executable, str(ROOT / "run.py"), str(file), "--test-only"]
    assert "to start at" in site.call(*command)
    refused = subprocess.run(
        [*command, "--set", "launch.partition=nowhere"], env=site.env, capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 1 and "sbatch would not take the job" in refused.stderr
    assert "invalid partition" in refused.stderr


def test_wait_comes_back_with_the_exit_code_of_the_job(site: Site) -> None:
    # sbatch looks after 2 seconds, and then after 8 more
    job_id, log = site.submit("waited", {"steps": 1}, "--wait")
    assert site.show(job_id)["JobState"] == "COMPLETED" and "step 1" in read(log)
    failing = {"setup": ["exit 3"]}
    with pytest.raises(AssertionError, match="is SLURM job"):
        site.submit("failed", {"steps": 3}, "--wait", **failing)


def test_of_an_array_only_the_task_whose_time_is_up_starts_again(site: Site) -> None:
    steps = {0: 10, 1: 35}
    array, log = site.submit("swept", {}, sweep={"list": [{"steps": count} for count in steps.values()]})
    logs = {index: log.with_name(f"slurm-{array}_{index}.out") for index in steps}
    site.until_logged(logs[1], "step 3")
    site.call("scancel", "--signal=USR2", f"{array}_1")
    assert [site.until_ended(f"{array}_{index}", logs[index]) for index in steps] == ["COMPLETED"] * 2
    assert [site.show(f"{array}_{index}")["Restarts"] for index in steps] == ["0", "1"]
    assert [steps_in(logs[index]) for index in steps] == [list(range(1, count + 1)) for count in steps.values()]
    points = [json.loads((site.folder / "output/swept" / str(index) / "point.json").read_text()) for index in steps]
    assert [point["state"] for point in points] == ["done"] * 2


def test_a_job_whose_node_is_lost_goes_on_at_another(site: Site) -> None:
    # the last one here: the machine stays lost
    job_id, log = site.submit("lost", {"steps": 60}, nodes=1)
    text = site.until_logged(log, "step 3")
    node = site.show(job_id)["NodeList"]
    daemon = int((site.folder / "cluster" / f"slurmd-{node}.pid").read_text())
    worker = int(text.partition("pid ")[2].split()[0])
    keeper = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    # what a machine does that loses its power; then the operator, or SlurmdTimeout, says that it is gone
    for pid in (daemon, keeper, worker):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    site.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")
    assert site.until_ended(job_id, log) == "COMPLETED", read(log)
    shown = site.show(job_id)
    assert shown["Restarts"] == "1" and shown["NodeList"] != node
    assert site.step("lost") == 60
