"""How runs stand according to a real SLURM: waiting, at work, ended in each way; and that `aitk cancel` ends them."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm_cluster import cluster, why_not

from toolkit.cli.cancel import stop
from toolkit.cli.status import table
from toolkit.launch.queue import Entry, Queue
from toolkit.launch.reasons import ended, waits
from toolkit.launch.record import Record, read_status, was_cancelled, write_background
from toolkit.launch.runs import log_files, named_run
from toolkit.launch.standing import Standing, standing

needs_slurm = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster of two nodes, which the programs of SLURM find."""
    with cluster(tmp_path_factory.mktemp("cluster")) as env, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", env["SLURM_CONF"])
        yield


def submit(folder: Path, command: str, *options: str) -> str:
    """Submit a shell command as the job of a run folder, and write down what `aitk run --slurm` writes down."""
    (folder / "slurm").mkdir(parents=True, exist_ok=True)
    log = f"--output={folder}/slurm/slurm-%j.out"
    result = subprocess.run(
        ["sbatch", "--parsable", log, *options, f"--wrap={command}"], capture_output=True, text=True, check=True
    )
    job_id = result.stdout.strip()
    with (folder / "slurm/jobs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"job_id": job_id, "time": time.time()}) + "\n")
    return job_id


def heartbeat(folder: Path, job_id: str, **fields: object) -> None:
    """What a run that is job `job_id` writes."""
    Record(folder).note(job_id=job_id, **fields)


def seen(folder: Path) -> Standing:
    found = standing(folder, Queue())
    assert found is not None
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


@needs_slurm
def test_jobs_that_end_by_themselves(slurm: None, tmp_path: Path) -> None:
    commands = {"good": "true", "bad": "exit 137", "saved": "exit 75", "told": "exit 1"}
    ids = {name: submit(tmp_path / name, command) for name, command in commands.items()}
    after = submit(tmp_path / "after", "true", f"--dependency=afterok:{ids['bad']}")
    heartbeat(tmp_path / "told", ids["told"], state="failed", reason="the disk is full")
    heartbeat(tmp_path / "saved", ids["saved"], checkpoint=20)
    wait_for(lambda: seen(tmp_path / "told").is_over)
    wait_for(lambda: seen(tmp_path / "saved").is_over)
    states = {name: (seen(tmp_path / name).state, seen(tmp_path / name).reason) for name in os.listdir(tmp_path)}
    assert states["good"] == ("done", "")
    assert states["bad"][0] == "failed" and states["bad"][1].startswith("FAILED, exit code 137: it was killed")
    assert states["told"] == ("failed", "the disk is full"), "what the run itself says is better than an exit code"
    assert states["saved"][1].endswith("its log says why; the same command goes on from step 20")
    wait_for(lambda: "in vain" in seen(tmp_path / "after").reason)
    assert seen(tmp_path / "after").state == "waiting"
    assert stop(seen(tmp_path / "after")) == f"SLURM job {after} is cancelled"
    assert seen(tmp_path / "after").state == "stopped"
    assert [path.name for path in log_files(tmp_path / "good")] == [f"slurm-{ids['good']}.out"]


@needs_slurm
def test_job_at_work_is_asked_to_save_and_a_deaf_one_is_ended(slurm: None, tmp_path: Path) -> None:
    hears = tmp_path / "hears.sh"
    hears.write_text("trap 'echo saved; exit 75' TERM\nwhile sleep 0.1; do :; done\n", encoding="utf-8")
    job_id = submit(tmp_path / "run", f"srun bash {hears}")
    wait_for(lambda: seen(tmp_path / "run").state == "starting")
    heartbeat(tmp_path / "run", job_id, step=5, total=10, seconds_per_step=2.0)
    found = seen(tmp_path / "run")
    assert (found.state, found.seconds_left) == ("running", 10)
    assert table([found])[1].split()[1:5] == ["running", "5/10", "2.00", "0:00:10"]
    assert named_run(job_id) == tmp_path / "run", "found by the log that SLURM writes"

    time.sleep(1)  # until the step of the job is there to hear
    assert stop(found).startswith(f"SLURM job {job_id} was told to save and stop at step 5")
    assert was_cancelled(tmp_path / "run", job_id)
    wait_for(lambda: seen(tmp_path / "run").is_over)
    assert "exit code 75" in seen(tmp_path / "run").reason, "SLURM itself has not ended it"
    assert "saved" in log_files(tmp_path / "run")[-1].read_text(encoding="utf-8")

    again = submit(tmp_path / "run", "sleep 100")
    wait_for(lambda: seen(tmp_path / "run").state == "starting")
    assert seen(tmp_path / "run").step is None, "what the job before wrote is not of this one"
    assert stop(seen(tmp_path / "run"), at_once=True) == f"SLURM job {again} is cancelled"
    wait_for(lambda: seen(tmp_path / "run").state == "stopped")
    assert seen(tmp_path / "run").reason == "CANCELLED: it was cancelled"


@needs_slurm
def test_job_that_slurm_forgot_is_lost_unless_it_said_how_it_ended(slurm: None, tmp_path: Path) -> None:
    heartbeat(tmp_path, "4711", step=5, total=10, checkpoint=4)
    lost = seen(tmp_path)
    assert lost.state == "lost" and lost.reason.endswith("the same command goes on from step 4")
    heartbeat(tmp_path, "4711", state="done", step=10)
    assert seen(tmp_path).state == "done"


@needs_slurm
def test_array_is_the_sum_of_its_tasks(slurm: None, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}", encoding="utf-8")
    job_id = submit(tmp_path, "test $SLURM_ARRAY_TASK_ID = 0 || sleep 100", "--array=0-2%1")
    heartbeat(tmp_path / "0", f"{job_id}_0", state="done", step=10, total=10)
    wait_for(lambda: seen(tmp_path).reason == "1 waiting, 1 done")
    heartbeat(tmp_path / "1", f"{job_id}_1")
    assert (seen(tmp_path).state, seen(tmp_path).reason) == ("running", "1 running, 1 waiting, 1 done")
    assert seen(tmp_path / "1").where.startswith(f"SLURM {job_id}_1 on n")
    said = stop(seen(tmp_path))
    assert f"{tmp_path / '1'}: SLURM job {job_id}_1 is cancelled" in said
    wait_for(lambda: seen(tmp_path).is_over)
    assert seen(tmp_path).reason == "1 stopped, 1 done"


def test_without_slurm_the_record_has_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    heartbeat(tmp_path, "12", step=5, total=10)
    found = seen(tmp_path)
    assert (found.state, found.step) == ("running", 5)
    assert found.reason == "SLURM does not answer here; this is what the run wrote last"


def test_run_that_was_started_here_after_a_job_is_no_job(tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/jobs.jsonl").write_text('{"job_id": "12", "time": 1.0}\n', encoding="utf-8")
    Record(tmp_path).note(step=3, total=4)
    assert read_status(tmp_path)["job_id"] is None
    assert seen(tmp_path).where == f"process {os.getpid()}"


def test_process_that_was_sent_to_the_background_last_counts(tmp_path: Path) -> None:
    Record(tmp_path).note(state="failed", reason="the disk is full")
    write_background(tmp_path, os.getpid(), tmp_path / "log.txt")
    fields = json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))
    (tmp_path / "status.json").write_text(json.dumps({**fields, "pid": 1, "birth": "of old"}), encoding="utf-8")
    assert seen(tmp_path).state == "starting"
    background = json.loads((tmp_path / "background.json").read_text(encoding="utf-8"))
    (tmp_path / "background.json").write_text(json.dumps({**background, "birth": "of old"}), encoding="utf-8")
    assert (seen(tmp_path).state, seen(tmp_path).reason) == (
        "failed",
        f"ended before it began; see {tmp_path / 'log.txt'}",
    )


@pytest.mark.parametrize(
    ("state", "exit_code", "start", "advice"),
    [
        ("TIMEOUT", "0:0", "TIMEOUT: ", "launch.signal_lead_s"),
        ("OUT_OF_MEMORY", "0:125", "OUT_OF_MEMORY: ", "launch.mem"),
        ("NODE_FAIL", "1:0", "NODE_FAIL: a machine failed (n7)", "launch.exclude"),
        ("PREEMPTED", "0:0", "PREEMPTED: ", "launch.requeue"),
        ("FAILED", "0:9", "FAILED, exit code 137: ", "launch.mem"),
        ("FAILED", "2:0", "FAILED, exit code 2: its config was refused", "log"),
        ("FAILED", "75:0", "FAILED, exit code 75: it stopped", "log"),
        ("FAILED", "99:0", "FAILED, exit code 99: ", "log"),
    ],
)
def test_ends_are_told_with_what_to_do(state: str, exit_code: str, start: str, advice: str) -> None:
    text = ended(Entry("1", state, nodes="n7", exit_code=exit_code))
    assert text.startswith(start) and advice in text


def test_waiting_is_explained() -> None:
    assert waits(Entry("1", "PENDING", "Resources", start="2026-01-02T03:04:05")) == (
        "until machines are free; starts at 2026-01-02 03:04:05"
    )
    assert waits(Entry("7", "PENDING", "JobHeldUser")) == "held by the user: `scontrol release 7`"
    assert "QOSMaxJobsPerUserLimit" in waits(Entry("1", "PENDING", "QOSMaxJobsPerUserLimit"))
    assert waits(Entry("1", "PENDING", "SomethingNew")) == "SomethingNew"
    assert waits(Entry("1", "PENDING")) == ""
    # as scontrol and as squeue writes it
    for reason in ("launch_failed_requeued_held", "launch failed requeued held"):
        assert "scontrol release 4" in waits(Entry("4", "PENDING", reason))


def test_the_second_job_of_a_chain_says_that_the_first_one_failed() -> None:
    assert "the job before it did not end well" in ended(Entry("1", "CANCELLED", "DependencyNeverSatisfied"))
    assert ended(Entry("1", "CANCELLED")) == "CANCELLED: it was cancelled"
