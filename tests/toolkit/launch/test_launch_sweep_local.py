"""A sweep of several processes per run, in the background: watched, kept from others, ended, gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from folder_extension import INIT

from toolkit.launch.queue import Queue
from toolkit.launch.record import is_live, read_background
from toolkit.launch.runs import log_files
from toolkit.launch.standing import Standing, standing

ROOT = Path(__file__).resolve().parents[3]
PROCESS = """
import os, time
from jobs import Stopped
from jobs.process import BaseExtensionProcess
from toolkit.training.stop import StopFlag

class ActProcess(BaseExtensionProcess):
    def run(self):
        what = self.get_conf("what")
        with StopFlag() as stop:
            print(f"{self.job.name} {what} as one of {os.environ['WORLD_SIZE']}: {os.getpid()}", flush=True)
            while what == "wait" and not os.path.exists("mended"):
                if stop.requested:
                    open("saved", "w").close()
                    raise Stopped("saved")
                time.sleep(0.05)
"""
JOB = """
job: extension
config:
  name: three
  sweep: {list: [{what: a}, {what: wait}, {what: c}]}
  process:
    - type: act
      training_folder: output
      what: none
"""
SWEEP = Path("output/three")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to start in, with the extension and the sweep; what is still at work at the end is killed."""
    folder = tmp_path / "extensions/actor"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(INIT, encoding="utf-8")
    (folder / "process.py").write_text(PROCESS, encoding="utf-8")
    (tmp_path / "three.yaml").write_text(JOB, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    if is_live(background := read_background(SWEEP)):
        with suppress(ProcessLookupError):
            os.kill(background["pid"], 9)


def aitk(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import run; sys.exit(run.start(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def seen(index: int | None = None) -> Standing:
    found = standing(SWEEP if index is None else SWEEP / str(index), Queue())
    assert found is not None
    return found


def begin() -> Path:
    """Start in the background and wait for the run that does not end; the log."""
    begun = aitk("run", "three.yaml", "--gpus", "2", "--background")
    assert begun.returncode == 0, begun.stderr
    log = SWEEP / "log.txt"
    wait_for(lambda: "three_1 wait as one of 2" in log.read_text(encoding="utf-8").rpartition("---")[2])
    return log


def states() -> dict[str, str]:
    files = sorted(SWEEP.glob("*/point.json"))
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8"))["state"] for file in files}


def test_sweep_in_the_background_is_watched_ended_and_gone_on_with(here: Path) -> None:
    log = begin()
    assert (seen().state, seen().reason) == ("running", "1 running, 1 done, 1 not started")
    assert (seen(0).state, seen(1).state) == ("done", "running")
    assert log_files(SWEEP / "1") == log_files(SWEEP) == [here / log]
    again = aitk("run", "three.yaml")
    assert again.returncode == 1 and "is in use by" in again.stderr, again.stderr
    assert states() == {"0": "done", "1": "running"}, "a second start takes nothing over"

    # the launcher is killed: its ranks hear of that, save and stop
    assert aitk("cancel", "three", "--now").returncode == 0
    wait_for(lambda: states()["1"] == "stopped")
    assert (here / "saved").exists() and seen().state == "stopped"

    log = begin()
    assert log.read_text(encoding="utf-8").count("three_0 a") == 1
    cancelled = aitk("cancel", "three")
    assert cancelled.returncode == 0, cancelled.stderr
    wait_for(lambda: seen().is_over)
    assert (seen().state, states()) == ("stopped", {"0": "done", "1": "stopped"})
    assert seen().reason == "1 stopped, 1 done, 1 not started; it was asked to stop"

    (here / "mended").touch()
    last = aitk("run", "three.yaml", "--gpus", "2")
    assert last.returncode == 0 and states() == dict.fromkeys("012", "done"), last.stderr
    assert "run 0 is done already" in last.stdout and "three_2 c as one of 2" in last.stdout
