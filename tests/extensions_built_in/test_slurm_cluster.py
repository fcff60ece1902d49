"""Jobs on a real SLURM cluster of two nodes: the time limit, cancelling, a lost node, two nodes that train together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import cluster, why_not

ROOT = Path(__file__).resolve().parents[2]
SRUN_ENV = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
SETTLED = 12
"""Looks at a job that have to agree, more than a second."""
pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is a cluster")

PYPROJECT = """
[project]
name = "counting"
[project.entry-points."aitk.processes"]
counting = "counting.config:Counting"
"""
COUNTING = '''
"""A trainer that learns nothing, without torch: it counts, saves where it is, and stops as trainers do."""

import os
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
    training_folder: str = works(..., "Where to.")
    steps: int = works(10, "Until when.")
    pause_s: float = works(0.0, "Before the first step.")

    def build(self, job):
        return Count(self, job.name)


class Count:
    def __init__(self, config, name):
        self.config, self.folder = config, RunFolder(Path(config.training_folder, name), name)

    def on_error(self, error):
        pass

    def run(self):
        rank = int(os.environ.get("RANK", "0"))
        step = max((saved.step for saved in self.folder.checkpoints()), default=0)
        print(f"resumed at {step}, pid {os.getpid()}", flush=True)
        time.sleep(self.config.pause_s)
        with self.folder.lock() if rank == 0 else StopFlag(), StopFlag() as stop:
            while step < self.config.steps and not stop.requested:
                time.sleep(0.1)
                step += 1
                print(f"step {step}", flush=True)
            if rank == 0:
                self.folder.record(step, [])
        if step < self.config.steps:
            raise Stopped(f"saved at step {step}")
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

    def submit(self, name: str, process: dict[str, Any], *options: str, **launch: Any) -> tuple[str, Path]:
        """Submit by the command line; job id and log."""
        launch = {"type": "slurm", "gpus_per_node": 0, "time": "30", "env": SRUN_ENV, **launch}
        process = {"type": "counting", "training_folder": str(self.folder / "output"), **process}
        file = self.folder / f"{name}.json"
        config = {"name": name, "launch": launch, "process": [process]}
        file.write_text(json.dumps({"job": "extension", "config": config}), encoding="utf-8")
        printed = self.call(sys.executable, str(ROOT / "run.py"), str(file), *options)
        found = printed.strip().splitlines()[-1]
        assert found.startswith(f"job '{name}' is SLURM job "), printed
        job_id, _, log = found.removeprefix(f"job '{name}' is SLURM job ").partition("; log: ")
        return job_id, Path(log)

    def show(self, job_id: str) -> dict[str, str]:
        words = self.call("scontrol", "show", "job", "--oneliner", job_id).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def until_logged(self, log: Path, text: str, times: int = 1) -> str:
        self.until(
            lambda: log.exists() and log.read_text().count(text) >= times, lambda: f"no '{text}' in\n{read(log)}"
        )
        return read(log)

    def until_ended(self, job_id: str, log: Path) -> str:
        """Wait for the end, through all starts, without the two minutes that SLURM lets pass between two."""

        seen: list[str] = []

        def has_ended() -> bool:
            """Judged by what stays: SLURM shows other states while it clears a start away."""
            shown = self.show(job_id)
            seen.append(f"{shown['JobState']} {shown['Restarts']}")
            if len(seen) < SETTLED or len(set(seen[-SETTLED:])) > 1:
                return False
            if shown["JobState"] == "PENDING" and shown["Restarts"] != "0":
                # refused if it has just begun
                update = ["scontrol", "update", f"JobId={job_id}", "StartTime=now"]
                subprocess.run(update, env=self.env, capture_output=True, timeout=60, check=False)
                seen.clear()
            return shown["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

        self.until(has_ended, lambda: f"{self.show(job_id)}\n{read(log)}")
        return self.show(job_id)["JobState"]

    def until(self, is_so: Callable[[], bool], failure: Callable[[], str], seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, failure()
            time.sleep(0.1)

    def step(self, name: str) -> int:
        listed = json.loads((self.folder / "output" / name / "checkpoints.json").read_text())["checkpoints"]
        return int(max(entry["step"] for entry in listed))


def read(log: Path) -> str:
    return log.read_text() if log.exists() else "nothing"


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
        yield Site(folder, {**env, **own})


def test_a_limit_of_one_minute_is_hit_and_the_job_goes_on_by_itself(site: Site) -> None:
    # SLURM looks at its clock every half minute, and sends the signal early rather than late
    job_id, log = site.submit("limit", {"steps": 330}, time="1", signal_lead_s=50)
    assert site.until_ended(job_id, log) == "COMPLETED", read(log)
    text = read(log)
    starts = [line for line in text.splitlines() if line.startswith("resumed at ")]
    assert len(starts) >= 2 and "the job is started again and goes on there" in text
    # nothing is lost, nothing is done twice
    done = [int(line.split()[1]) for line in text.splitlines() if line.startswith("step ")]
    assert done == list(range(1, 331)), text
    assert site.step("limit") == 330


def test_a_cancelled_job_saves_and_does_not_come_back(site: Site) -> None:
    job_id, log = site.submit("cancelled", {"steps": 999}, nodes=2)
    site.until_logged(log, "step 3")
    site.call("scancel", job_id)
    assert site.until_ended(job_id, log) == "CANCELLED"
    text = site.until_logged(log, "the job is not started again: SLURM has ended it")
    assert text.count("was stopped: saved at step") == 1
    assert site.step("cancelled") >= 3 and site.show(job_id)["Restarts"] == "0"


def test_without_progress_there_is_no_other_start(site: Site) -> None:
    job_id, log = site.submit("stuck", {"pause_s": 600})
    site.until_logged(log, "resumed at 0")
    site.call("scancel", "--signal=USR2", job_id)
    assert site.until_ended(job_id, log) == "FAILED"
    assert "the job is not started again: this start made no progress" in read(log)
    assert site.show(job_id)["ExitCode"] == "75:0"


def test_where_a_job_may_not_be_started_again_it_goes_on_as_another_one(site: Site) -> None:
    job_id, log = site.submit("forbidden", {"steps": 60})
    site.until_logged(log, "step 3")
    site.call("scontrol", "update", f"JobId={job_id}", "Requeue=0")
    site.call("scancel", "--signal=USR2", job_id)
    assert site.until_ended(job_id, log) == "FAILED"
    (second,) = [line for line in read(log).splitlines() if "it goes on as job " in line]
    second_id = second.partition("it goes on as job ")[2].split()[0]
    second_log = log.with_name(f"slurm-{second_id}.out")
    assert site.until_ended(second_id, second_log) == "COMPLETED", read(second_log)
    assert "resumed at 0" not in read(second_log) and site.step("forbidden") == 60
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
    job_id, log = site.submit("waited", {"steps": 3}, "--wait")
    assert site.show(job_id)["JobState"] == "COMPLETED" and "step 3" in read(log)
    failing = {"setup": ["exit 3"]}
    with pytest.raises(AssertionError, match="is SLURM job"):
        site.submit("failed", {"steps": 3}, "--wait", **failing)


def training(site: Site, tiny_flux: Path, shapes_folder: Path) -> dict[str, Any]:
    return {
        "type": "sd_trainer",
        "training_folder": str(site.folder / "output"),
        "device": "cpu",
        "model": {"arch": "flux", "name_or_path": str(tiny_flux)},
        "network": {"type": "lora", "linear": 2, "network_kwargs": {"only_if_contains": ["attn.to_q"]}},
        "datasets": [{"folder_path": str(shapes_folder), "resolution": 32, "cache_latents_to_disk": True}],
        "train": {
            "steps": 60,
            "batch_size": 1,
            "lr": 1e-2,
            "gradient_checkpointing": False,
            "disable_sampling": True,
        },
        "save": {"dtype": "fp32"},
        "logging": {"log_every": 1},
    }


def test_two_nodes_stopped_in_the_middle_learn_what_they_learn_in_one_go(
    site: Site, tiny_flux: Path, shapes_folder: Path
) -> None:
    from safetensors.torch import load_file

    process = training(site, tiny_flux, shapes_folder)
    first, log = site.submit("stopped", process, nodes=2)
    metrics = site.folder / "output" / "stopped" / "metrics.jsonl"
    site.until(
        lambda: metrics.exists() and '"step": 5' in metrics.read_text(),
        lambda: f"{site.show(first)}\n{site.call('sinfo')}\n{read(log)}",
        seconds=300,
    )
    site.call("scancel", "--signal=USR2", first)
    # the second one waits for the caches of the first
    whole, whole_log = site.submit("whole", process, nodes=2)
    assert site.until_ended(first, log) == "COMPLETED", read(log)
    assert site.until_ended(whole, whole_log) == "COMPLETED", read(whole_log)
    text = read(log)
    assert site.show(first)["Restarts"] == "1" and "resumed exactly at step" in text
    assert "2 processes take each step together" in text and text.count("was stopped: ") == 1
    one, other = (load_file(site.folder / "output" / name / f"{name}.safetensors") for name in ("stopped", "whole"))
    assert one.keys() == other.keys() and all(bool((one[key] == other[key]).all()) for key in one)


def test_a_job_whose_node_is_lost_goes_on_at_another(site: Site) -> None:
    # the last one here: the machine stays lost
    job_id, log = site.submit("lost", {"steps": 80}, nodes=1)
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
    assert site.step("lost") == 80
