"""`aitk run --background`, `status`, `logs` and `cancel` with real processes; what they do is a folder extension."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import folder_extension
import pytest

from toolkit.launch.queue import Queue
from toolkit.launch.record import read_background
from toolkit.launch.runs import NoSuchRun, find_runs, named_run
from toolkit.launch.standing import standing


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to start in, with the extension; what is still running at the end is killed."""
    folder_extension.write_extension(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for run in find_runs(tmp_path / "output"):
        with suppress(ProcessLookupError, KeyError):
            os.kill(read_background(run)["pid"], signal.SIGKILL)


def job(name: str, what: str) -> str:
    return folder_extension.write_job(Path(), name, what)


def aitk(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(folder_extension.aitk(*arguments), capture_output=True, text=True, check=False, timeout=60)


def state(name: str) -> str:
    found = standing(Path("output") / name, Queue())
    return found.state if found else ""


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_background_run_is_watched_and_cancelled(here: Path) -> None:
    begun = aitk("run", job("a", "train"), "--background")
    assert begun.returncode == 0, begun.stderr
    pid, log = read_background(Path("output/a"))["pid"], here / "output/a/log.txt"
    assert begun.stdout.splitlines()[:2] == [
        f"job 'a' runs in the background as process {pid}; results: output/a",
        f"log: {log}",
    ]
    wait_for(lambda: "a does train" in log.read_text(encoding="utf-8"))
    assert os.getsid(pid) == pid != os.getsid(0), "the end of the terminal does not end it"

    again = aitk("run", "a.yaml", "--background")
    assert (again.returncode, "output/a is in use by another run" in again.stderr) == (1, True)

    watched = subprocess.Popen(folder_extension.aitk("logs", "-f", "a"), stdout=subprocess.PIPE, text=True)
    (shown,) = json.loads(aitk("status", "--json").stdout)
    assert (shown["name"], shown["state"], shown["pid"], shown["log"]) == ("a", "running", pid, str(log))
    cancelled = aitk("cancel", "a")
    assert cancelled.stdout.startswith(f"output/a: process {pid} has ended: saved at "), cancelled.stderr
    said, _ = watched.communicate(timeout=30)
    assert "a does train\n" in said and "job 'a' was stopped: saved at " in said
    assert said.splitlines()[-1].startswith("--- stopped: saved at ")
    assert state("a") == "stopped"
    assert aitk("cancel", "a").stdout == "output/a: has ended already (stopped)\n"


def test_ends_of_background_runs_are_told(here: Path) -> None:
    assert aitk("run", job("good", "work"), job("bad", "fail"), "--background").returncode == 0
    wait_for(lambda: state("bad") == "failed")
    table = aitk("status").stdout.splitlines()
    assert [line.split()[:2] for line in table[:2]] == [["RUN", "STATE"], ["bad", "failed"]]
    assert table[2] == "  the sky fell"
    assert table[3].split()[:2] == ["good", "done"]
    assert "job 'bad' failed: the sky fell" in aitk("logs", "bad").stdout, "one process, one log"


def test_killed_run_is_lost(here: Path) -> None:
    aitk("run", job("a", "train"), "--background")
    wait_for(lambda: state("a") == "running")
    os.kill(read_background(Path("output/a"))["pid"], signal.SIGKILL)
    wait_for(lambda: state("a") == "lost")
    assert "the process is gone without a word" in aitk("status", "a").stdout
    aitk("run", "a.yaml", "--background")
    wait_for(lambda: state("a") == "running")
    assert aitk("cancel", "--now", "a").stdout.endswith("has ended: cancelled; what was saved before is complete\n")
    assert state("a") == "stopped"


def test_run_that_is_not_there_is_named(here: Path) -> None:
    for name in ("status", "logs", "cancel"):
        result = aitk(name, "nope")
        assert (result.returncode, result.stderr) == (
            2,
            "there is no run nope, neither as a folder nor below output, where no run was begun yet: name its folder, "
            "or call this in the folder that holds output\n",
        )
    for name in ("mochi", "sweep/0", "sweep/10", "sweep/9"):
        (here / "output" / name).mkdir(parents=True)
        (here / "output" / name / "background.json").write_text("{}", encoding="utf-8")
    assert [str(path.relative_to(here / "output")) for path in find_runs(here / "output")] == [
        "mochi",
        "sweep/0",
        "sweep/9",
        "sweep/10",
    ]
    with pytest.raises(NoSuchRun, match="did you mean mochi"):
        named_run("mocho")
    with pytest.raises(NoSuchRun, match="sweep holds 3 runs"):
        named_run("sweep")


def test_background_is_for_this_machine(here: Path) -> None:
    result = aitk("run", job("a", "train"), "--background", "--slurm")
    assert (result.returncode, "--background is for this machine" in result.stderr) == (2, True)
    assert not Path("output").exists()
