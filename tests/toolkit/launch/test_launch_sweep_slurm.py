"""Sweeps as job arrays and chains of jobs, on a real SLURM cluster. The processes are light: a folder extension."""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import folder_extension
import pytest
import slurm_cluster
from folder_extension import acted, run_py

pytestmark = pytest.mark.skipif(bool(slurm_cluster.why_not()), reason=slurm_cluster.why_not())
JOB = """
job: extension
config:
  name: {name}
  launch: {{type: slurm, gpus_per_node: 0, time: 5, array_parallelism: 3, setup: ["export MASTER_ADDR=127.0.0.1"]}}
  {sweep}
  process:
    - type: act
      training_folder: out
      what: {what}
"""


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of the commands of a cluster, which the tests share."""
    with slurm_cluster.cluster(tmp_path_factory.mktemp("cluster")) as env:
        yield {**env, "XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("empty"))}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to start in, with the extension."""
    here = tmp_path_factory.mktemp("here")
    folder_extension.write_extension(here)
    return here


def write_job(here: Path, name: str, what: str = "x", sweep: str = "") -> str:
    (here / f"{name}.yaml").write_text(JOB.format(name=name, what=what, sweep=sweep), encoding="utf-8")
    return f"{name}.yaml"


def together(here: Path, env: dict[str, str], *commands: list[str]) -> list[str]:
    """Run several `aitk run` at once; what each printed."""
    started = [
        subprocess.Popen(run_py(*arguments), cwd=here, env=env, stdout=subprocess.PIPE, text=True)
        for arguments in commands
    ]
    said = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(commands), said
    return said


def wait_until_idle(env: dict[str, str]) -> None:
    """Wait until no job is left that may still run."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        shown = subprocess.run(
            ["squeue", "--noheader"], env=env, capture_output=True, text=True, timeout=20, check=True
        ).stdout
        if not shown.strip():
            return
        time.sleep(0.2)
    raise AssertionError(shown)


def states(here: Path, name: str, count: int) -> list[str]:
    files = [here / "out" / name / str(index) / "point.json" for index in range(count)]
    return [json.loads(file.read_text(encoding="utf-8"))["state"] for file in files]


@dataclass(frozen=True)
class Seen:
    """What was seen of a sweep and two chains, after a first and a second submission of the same commands."""

    here: Path
    said: list[str]
    logs: list[list[str]]
    ends: list[list[str]]
    script: str


@pytest.fixture(scope="module")
def seen(here: Path, env: dict[str, str]) -> Seen:
    """Submit all at once, wait once, mend what fails, and do it again: waits on a cluster are long."""
    four = write_job(here, "four", sweep="sweep: {grid: {what: [a, b, fail, d]}}")
    chain = [write_job(here, name, what) for name, what in (("bad", "fail"), ("good", "b"))]
    said, logs, ends = [], [], []
    for _ in range(2):
        (here / "log.txt").unlink(missing_ok=True)
        said += together(here, env, [four], chain)
        wait_until_idle(env)
        logs.append(acted(here))
        ends.append(states(here, "four", 4))
        (here / "mended").touch()
    script = (here / "out/four/slurm/submit.sbatch").read_text(encoding="utf-8")
    return Seen(here, said, logs, ends, script)


def test_four_runs_are_one_array_whose_tasks_pick_their_config(seen: Seen) -> None:
    logs = sorted((seen.here / "out/four/slurm").glob("slurm-*_?.out"))
    first = [path.name.rpartition("_")[2] for path in logs if path.name.split("_")[0] == logs[0].name.split("_")[0]]
    assert first == ["0.out", "1.out", "2.out", "3.out"]
    assert sorted(line for line in seen.logs[0] if line.startswith("four")) == [
        "four_0 a",
        "four_1 b",
        "four_2 fail",
        "four_3 d",
    ]
    assert seen.ends[0] == ["done", "done", "failed", "done"]
    assert (seen.here / "out/four/3/four_3.txt").read_text(encoding="utf-8") == "d"


def test_the_same_command_submits_only_what_failed(seen: Seen) -> None:
    assert [line for line in seen.logs[1] if line.startswith("four")] == ["four_2 fail"]
    assert "#SBATCH --array=2%3" in seen.script
    assert seen.ends[1] == ["done"] * 4


def test_a_chain_ends_with_its_first_failure_and_goes_on_after_a_success(seen: Seen) -> None:
    assert "'good' begins when 'bad'" in seen.said[1]
    assert [line for line in seen.logs[0] if not line.startswith("four")] == ["bad fail"]
    assert [line for line in seen.logs[1] if not line.startswith("four")] == ["bad fail", "good b"]


def test_what_waits_or_runs_is_not_submitted_a_second_time(here: Path, env: dict[str, str]) -> None:
    job = write_job(here, "held", sweep="sweep: {list: [{what: a}, {what: b}]}")
    text = (here / job).read_text(encoding="utf-8").replace("gpus_per_node: 0", "gpus_per_node: 0, extra: {hold: true}")
    (here / job).write_text(text, encoding="utf-8")
    assert together(here, env, [job])
    (again,) = together(here, env, [job])
    assert "there is nothing to submit" in again and "on the cluster" in again
    array = json.loads((here / "out/held/slurm/jobs.jsonl").read_text(encoding="utf-8").splitlines()[0])["job_id"]
    subprocess.run(["scancel", array], env=env, check=True, timeout=20)
