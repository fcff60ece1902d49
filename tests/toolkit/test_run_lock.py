"""One run at a time in a folder, and no lock that outlives its run."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolkit import run_lock
from toolkit.run_lock import RunFolderBusy, hold

REPOSITORY = Path(__file__).parents[2]


def start(code: str, path: Path) -> subprocess.Popen[str]:
    """Run Python code in a process of its own."""
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


HOLDING = """
import sys, time
from pathlib import Path
from toolkit.run_lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_live_run_is_named_and_a_killed_one_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    process = start(HOLDING, path)
    assert process.stdout and process.stdout.readline() == "held\n"
    with pytest.raises(RunFolderBusy, match=f"process {process.pid} on .*, since"), hold(path):
        pass
    process.kill()
    process.communicate()
    assert path.exists()
    with hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_second_hold_in_one_process_is_refused(tmp_path: Path) -> None:
    with hold(tmp_path / ".lock"), pytest.raises(RunFolderBusy), hold(tmp_path / ".lock"):
        pass


RACING = """
import sys, time
from pathlib import Path
from toolkit import run_lock
from toolkit.run_lock import RunFolderBusy, hold
path = Path(sys.argv[1])
print("ready", flush=True)
while not path.with_name("go").exists():
    pass
try:
    with hold(path):
        while not path.with_name("end").exists():
            time.sleep(0.01)
        print("held")
except RunFolderBusy:
    print("busy")
"""


def test_of_four_that_start_at_once_one_gets_in(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(json.dumps({"pid": 1, "host": "gone", "started": "long ago"}))
    processes = [start(RACING, tmp_path / ".lock") for _ in range(4)]
    assert all(process.stdout and process.stdout.readline() == "ready\n" for process in processes)
    (tmp_path / "go").touch()
    deadline = time.monotonic() + 30
    while sum(process.poll() is None for process in processes) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    (tmp_path / "end").touch()
    assert sorted(process.communicate()[0] for process in processes) == ["busy\n"] * 3 + ["held\n"]


FORKING = """
import os, sys, time
from pathlib import Path
from toolkit.run_lock import hold
with hold(Path(sys.argv[1])):
    if os.fork() == 0:  # the child speaks for itself, so that it has let go of what it inherited by then
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_worker_that_survives_its_run_does_not_keep_the_lock(tmp_path: Path) -> None:
    process = start(FORKING, tmp_path / ".lock")
    assert process.stdout
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        with hold(tmp_path / ".lock"):
            os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1, "host": "another", "started": "then"}', "[]"])
def test_what_a_dead_lock_says_does_not_matter(tmp_path: Path, text: str) -> None:
    (tmp_path / ".lock").write_text(text)
    with hold(tmp_path / ".lock"):
        pass


def test_the_last_start_of_a_job_on_a_lost_machine_is_waited_for_and_then_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lock"
    process = start(HOLDING, path)
    assert process.stdout and process.stdout.readline() == "held\n"
    # the lock that a file server keeps for a machine that it has not missed yet
    path.write_text(json.dumps({"pid": process.pid, "host": "lost", "started": "then", "job": "7"}))
    monkeypatch.setattr(run_lock, "LEASE_S", 0.3)
    monkeypatch.setattr(run_lock, "PAUSE_S", 0.05)
    try:
        monkeypatch.setenv("SLURM_JOB_ID", "8")
        with pytest.raises(RunFolderBusy, match="on lost, since then"), hold(path):
            pass
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        begin = time.monotonic()
        with hold(path):
            assert json.loads(path.read_text())["pid"] == os.getpid() and time.monotonic() - begin >= 0.3
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def lockless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system that has no locks."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(run_lock, "SETTLE_S", 0.0)


def test_without_locks_what_the_file_says_decides(
    lockless: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lock"
    elsewhere = {"pid": 1, "host": "another", "started": "then", "job": "7"}
    path.write_text(json.dumps(elsewhere))
    with pytest.raises(RunFolderBusy, match="process 1 on another"), hold(path):
        pass
    # the same job of a cluster, started again after its machine was lost
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with hold(path):
        assert json.loads(path.read_text())["job"] == "7"
    path.write_text(json.dumps(elsewhere))
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    with pytest.raises(RunFolderBusy), hold(path):
        pass


def test_without_locks_the_last_of_two_to_write_gets_in(
    lockless: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lock"

    def meanwhile(seconds: float) -> None:
        path.write_text(json.dumps({"pid": 1, "host": "another", "started": "then"}))

    monkeypatch.setattr(run_lock.time, "sleep", meanwhile)
    with pytest.raises(RunFolderBusy), hold(path):
        pass
