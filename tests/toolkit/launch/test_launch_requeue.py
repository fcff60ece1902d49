"""When a job on a cluster asks for another start, by the real files of a run and small programs in SLURM's place."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolkit.launch.environment import cluster_ranks, lacks_gpus
from toolkit.launch.requeue import TEMPORARY, note_start, progress, why_not
from toolkit.launch.save_time import SaveTime, longest_save, save_time
from toolkit.launch.slurm import SlurmError, own_job, start_estimate, submit, submitted
from toolkit.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SLURM is not for Windows")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Of the first task of a job with a run folder; scontrol and sbatch write down what they are asked."""
    programs = tmp_path / "programs"
    programs.mkdir()
    run = tmp_path / "output" / "run"
    (run / "slurm").mkdir(parents=True)
    for name, answer in (("scontrol", 'if [ "$1" = show ]; then cat "$0.state"; exit 0; fi'), ("sbatch", "echo 99")):
        (programs / name).write_text(f'#!/bin/bash\necho "$@" >> {programs}/asked\n{answer}\nexit $(cat "$0.code")\n')
        (programs / name).chmod(0o755)
        (programs / f"{name}.code").write_text("0")
    (programs / "scontrol.state").write_text("JobId=7 JobState=RUNNING Reason=None\n")
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "AITK_LAUNCHED": "slurm",
        "AITK_RUN_FOLDER": str(run),
        "AITK_PROGRESS": str(run),
        "AITK_SCRIPT": str(run / "slurm" / "submit.sbatch"),
        "AITK_MAX_REQUEUES": "3",
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
    }


@pytest.fixture(autouse=True)
def in_the_job(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", env["PATH"])


def save(env: dict[str, str], step: int) -> None:
    RunFolder(env["AITK_RUN_FOLDER"], "run").record(step, [])


def programs(env: dict[str, str]) -> Path:
    return Path(env["PATH"].partition(":")[0])


def leave(env: dict[str, str]) -> tuple[int, str]:
    """What a process of the job does at its end: exit code, and what it says."""
    code = (
        "import os, sys; from toolkit.launch import requeue; requeue.PATIENCE_S = 0; "
        "sys.exit(requeue.after_stop(os.environ))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def asked(env: dict[str, str]) -> list[str]:
    file = programs(env) / "asked"
    return [line for line in file.read_text().splitlines() if not line.startswith("show")] if file.exists() else []


def test_progress_is_a_saved_step_or_a_fuller_cache(env: dict[str, str]) -> None:
    note_start(env)
    assert why_not(env).startswith("this start made no progress")
    save(env, 5)
    assert why_not(env) == ""
    note_start(env)
    save(env, 5)
    assert why_not(env).startswith("this start made no progress")
    cache = Path(env["AITK_RUN_FOLDER"]).parent / ".aitk_cache" / "latents"
    cache.mkdir(parents=True)
    (cache / "shard").write_bytes(b"1234")
    assert why_not(env) == ""


def test_pictures_and_captions_are_progress_too(env: dict[str, str], tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    env |= {"AITK_PROGRESS": "", "AITK_FILLED": str(made)}
    (made / "0.png").write_bytes(b"1")
    note_start(env)
    (made / ".aitk-tmp-1.png").write_bytes(b"half of one")
    assert why_not(env).startswith("this start made no progress")
    (made / "1.png").write_bytes(b"2")
    assert why_not(env) == ""


def test_folders_may_have_colons_in_their_names(env: dict[str, str], tmp_path: Path) -> None:
    runs = [tmp_path / "output" / name for name in ("a:1", "b")]
    env["AITK_PROGRESS"] = "\n".join(map(str, runs))
    note_start(env)
    for run in runs:
        RunFolder(run, run.name).record(5, [])
    assert progress(env)["steps"] == [5, 5] and why_not(env) == ""


def test_work_whose_progress_is_not_known_may_go_on(env: dict[str, str]) -> None:
    del env["AITK_PROGRESS"]
    note_start(env)
    assert why_not(env) == ""


def test_starts_are_counted_through_jobs(env: dict[str, str]) -> None:
    for step in range(4):
        note_start(env)
        save(env, step + 1)
        assert bool(why_not(env)) == (step == 3)
    assert why_not(env) == "it was 3 times (launch.max_requeues)"
    assert why_not({**env, "AITK_MAX_REQUEUES": "9"}) == ""
    assert "9 times" in why_not({**env, "AITK_MAX_REQUEUES": "9", "SLURM_RESTART_COUNT": "9"})
    assert why_not({**env, "AITK_MAX_REQUEUES": "0"}).startswith("launch.requeue is false")


def test_what_slurm_has_ended_is_not_brought_back(env: dict[str, str]) -> None:
    note_start(env)
    save(env, 1)
    state = programs(env) / "scontrol.state"
    state.write_text("JobId=7 JobState=COMPLETING Reason=None\n")
    assert "SLURM has ended it" in why_not(env)
    state.write_text("JobId=7 JobState=COMPLETING Reason=TimeLimit\n")
    assert why_not(env) == ""
    # what is left of a start on a machine that was declared lost
    state.write_text("JobId=7 JobState=RUNNING Reason=None Requeue=1 Restarts=1 BatchFlag=1\n")
    assert "started it again on another one" in why_not(env)
    assert why_not({**env, "SLURM_RESTART_COUNT": "1"}) == ""
    (Path(env["AITK_RUN_FOLDER"]) / "stop").touch()
    assert why_not(env).endswith("/stop asked it to stop")


def test_the_first_rank_asks_and_the_others_leave_quietly(env: dict[str, str]) -> None:
    note_start(env)
    save(env, 1)
    assert leave({**env, "RANK": "1"}) == (0, "") and asked(env) == []
    code, said = leave({**env, "RANK": "0"})
    assert (code, said) == (TEMPORARY, "the job is started again and goes on there\n")
    assert asked(env) == ["requeue 7"]


def test_what_slurm_starts_again_by_itself_is_not_submitted_anew(env: dict[str, str]) -> None:
    note_start(env)
    save(env, 1)
    (programs(env) / "scontrol.state").write_text("JobId=7 JobState=PENDING Reason=BeginTime\n")
    (programs(env) / "scontrol.code").write_text("1")
    assert leave(env) == (TEMPORARY, "the job is started again and goes on there\n")
    assert asked(env) == ["requeue 7"]


def test_a_task_of_an_array_is_named_by_its_index(env: dict[str, str]) -> None:
    env |= {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}
    assert own_job(env) == "5_3"
    note_start(env)
    save(env, 1)
    (programs(env) / "scontrol.code").write_text("1")
    code, said = leave(env)
    assert code == TEMPORARY and "it goes on as job 99 instead" in said
    assert asked(env) == ["requeue 5_3", f"--parsable --dependency=afterany:5_3 --array=3 {env['AITK_SCRIPT']}"]
    (line,) = (Path(env["AITK_RUN_FOLDER"]) / "slurm" / "jobs.jsonl").read_text().splitlines()
    assert json.loads(line)["job_id"] == "99" and json.loads(line)["after"] == "5_3"


def test_without_any_way_the_reason_is_said(env: dict[str, str]) -> None:
    note_start(env)
    save(env, 1)
    (programs(env) / "scontrol.code").write_text("1")
    (programs(env) / "sbatch").write_text("#!/bin/bash\necho no such thing >&2\nexit 1\n")
    code, said = leave(env)
    assert code == TEMPORARY
    assert "the job is not started again: exit code 1; nor could it be submitted again" in said
    assert "no such thing" in said


def test_programs_that_belong_to_no_cluster_are_told(env: dict[str, str]) -> None:
    said = "sbatch: fatal: Could not establish a configuration source"
    (programs(env) / "sbatch").write_text(f"#!/bin/bash\necho {said} >&2\nexit 1\n")
    script = Path(env["AITK_SCRIPT"])
    for ask in (submit, start_estimate, lambda script: submitted(script).__enter__()):
        with pytest.raises(SlurmError, match=f"{said}; is this a login node of the cluster"):
            ask(script)


def test_what_a_site_says_before_the_id_is_no_refusal(env: dict[str, str]) -> None:
    (programs(env) / "sbatch").write_text(
        "#!/bin/bash\necho 'sbatch: your group has 12 hours left' >&2\necho '4711;here'\nexit 3\n"
    )
    assert submit(Path(env["AITK_SCRIPT"])) == "4711"
    with submitted(Path(env["AITK_SCRIPT"])) as (job_id, wait):
        assert (job_id, wait()) == ("4711", 3)


def test_slurm_names_the_ranks(env: dict[str, str]) -> None:
    task = {**env, "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}
    expected = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
    assert cluster_ranks(task) == expected
    assert cluster_ranks({**task, "RANK": "0"}) == {}, "torchrun has said it"
    assert cluster_ranks({key: value for key, value in task.items() if key != "AITK_LAUNCHED"}) == {}


@pytest.mark.parametrize("seen, is_enough", [(0, False), (1, True), (2, False), (4, True), (8, True)])
def test_missing_gpus_are_told(env: dict[str, str], seen: int, is_enough: bool) -> None:
    assert (lacks_gpus({**env, "AITK_GPUS_PER_NODE": "4"}, seen) == "") == is_enough
    assert lacks_gpus({**env, "AITK_GPUS_PER_NODE": "0"}, seen) == lacks_gpus({}, seen) == ""


def test_a_slow_save_is_told_once_and_kept(env: dict[str, str]) -> None:
    run, said = Path(env["AITK_RUN_FOLDER"]), []
    timer = save_time({**env, "AITK_SIGNAL_LEAD_S": "180"}, said.append)
    assert isinstance(timer, SaveTime)
    for seconds in (10.0, 95.0, 120.0, 20.0):
        timer(seconds)
    (text,) = said
    assert "this save took 95 s" in text and "set it to 285" in text
    assert longest_save(run) == 120 and longest_save(run / "nowhere") == 0
    assert save_time({}) is None and save_time({**env, "AITK_SIGNAL_LEAD_S": "9", "RANK": "1"}) is None


def test_a_second_signal_does_not_keep_a_job_from_being_started_again(env: dict[str, str]) -> None:
    note_start(env)
    save(env, 1)
    (programs(env) / "scontrol").write_text(
        '#!/bin/bash\necho "$@" >> "$(dirname "$0")/asked"\nkill -TERM $PPID\nkill -USR2 $PPID\nsleep 0.2\n'
    )
    assert leave(env)[0] in (TEMPORARY, -signal.SIGTERM)
    assert asked(env) == ["requeue 7"]


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what a process does with its signals")
@pytest.mark.parametrize("name", ["SigBlk", "SigCgt"])
def test_a_signal_before_the_first_job_has_it_started_again(env: dict[str, str], tmp_path: Path, name: str) -> None:
    """While the program is loaded, which holds signals back, or while it reads a config (this one never comes)."""
    os.mkfifo(tmp_path / "job.yaml")
    command = [sys.executable, str(ROOT / "run.py"), "job.yaml"]
    process = subprocess.Popen(command, env={**os.environ, **env}, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 40
    while signal.SIGUSR2 not in signals_of(process.pid, name):
        assert time.monotonic() < end and process.poll() is None
    process.send_signal(signal.SIGUSR2)
    while asked(env) != ["requeue 7"]:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)  # as SLURM does
        time.sleep(0.02)
    assert process.communicate()[1] == "interrupted before the job began\n"
    assert process.returncode == -signal.SIGTERM


def signals_of(pid: int, name: str) -> list[int]:
    """The signals that a process blocks (SigBlk), or catches (SigCgt)."""
    found = re.search(rf"^{name}:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    bits = int(found[1], 16) if found else 0
    return [number for number in range(1, 65) if bits >> (number - 1) & 1]
