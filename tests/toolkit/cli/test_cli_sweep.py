"""`aitk run` of a sweep and of a chain on this machine: order, failures, continuing. The processes are light."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import folder_extension
import pytest
from folder_extension import acted, run_py

from toolkit.launch.record import read_background

JOB = """
job: extension
config:
  name: four
  sweep: {{list: [{runs}]}}
  process:
    - type: act
      training_folder: out
      what: none
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder to start in, with the extension."""
    folder_extension.write_extension(tmp_path)
    return tmp_path


def write_sweep(here: Path, *whats: str) -> None:
    runs = ", ".join(f"{{what: {what}}}" for what in whats)
    (here / "four.yaml").write_text(JOB.format(runs=runs), encoding="utf-8")


def aitk(here: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(run_py(*arguments), cwd=here, capture_output=True, text=True, timeout=60, check=False)


def states(here: Path) -> dict[str, str]:
    files = sorted((here / "out/four").glob("*/point.json"))
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8"))["state"] for file in files}


def test_a_failed_run_does_not_end_the_sweep_and_the_same_command_does_the_rest(here: Path) -> None:
    write_sweep(here, "a", "fail", "c")
    first = aitk(here, "four.yaml")
    assert first.returncode == 1 and "job 'four_1' failed: the sky fell" in first.stderr
    assert acted(here) == ["four_0 a", "four_1 fail", "four_2 c"]
    assert states(here) == {"0": "done", "1": "failed", "2": "done"}

    (here / "mended").touch()
    assert aitk(here, "four.yaml").returncode == 0
    assert acted(here)[3:] == ["four_1 fail"]

    # a value that is appended leaves the others as they are; another one in their place is refused
    write_sweep(here, "a", "fail", "c", "d")
    assert aitk(here, "four.yaml").returncode == 0
    assert acted(here)[4:] == ["four_3 d"]
    write_sweep(here, "b", "fail", "c", "d")
    refused = aitk(here, "four.yaml")
    assert refused.returncode == 2 and "out/four/0 holds the run with what=a" in refused.stderr


def test_ctrl_c_ends_the_whole_sweep(here: Path) -> None:
    write_sweep(here, "a", "wait", "c")
    running = subprocess.Popen(run_py("four.yaml"), cwd=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    end = time.monotonic() + 60
    while len(acted(here)) < 2:
        assert time.monotonic() < end and running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=30)
    assert running.returncode == 130 and b"the same command goes on with it" in output
    assert acted(here) == ["four_0 a", "four_1 wait"] and states(here) == {"0": "done", "1": "stopped"}


def test_a_dry_run_shows_the_runs_and_writes_nothing(here: Path) -> None:
    write_sweep(here, "a", "b")
    shown = aitk(here, "four.yaml", "--dry-run", "--slurm")
    assert shown.returncode == 0, shown.stderr
    assert "  0  a     not started" in shown.stdout and "  1  b     not started" in shown.stdout
    assert "#SBATCH --array=0-1" in shown.stdout
    assert not (here / "out").exists()


def test_a_dry_run_tells_which_runs_are_lost(here: Path) -> None:
    write_sweep(here, "a", "wait")
    assert aitk(here, "four.yaml", "--background").returncode == 0
    end = time.monotonic() + 60
    while len(acted(here)) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "  1  wait  running" in aitk(here, "four.yaml", "--dry-run").stdout
    os.kill(read_background(here / "out/four")["pid"], signal.SIGKILL)
    while "  1  wait  lost" not in (shown := aitk(here, "four.yaml", "--dry-run").stdout):
        assert time.monotonic() < end, shown
    assert "  0  a     done" in shown


def test_a_file_that_an_earlier_job_makes_may_be_missing(here: Path) -> None:
    train = """
    job: extension
    config:
      name: first
      process:
        - type: act
          training_folder: ./out
    """
    merge = """
    job: merge
    config:
      name: second
      process:
        - type: merge_loras
          loras: [{path: ./out/first/first.safetensors}, {path: ./other/first.safetensors}]
          output_path: ./out/merged.safetensors
    """
    (here / "first.yaml").write_text(train, encoding="utf-8")
    (here / "second.yaml").write_text(merge, encoding="utf-8")
    alone = aitk(here, "second.yaml", "--dry-run")
    assert alone.stderr.count("there is no file") == 2, alone
    after = aitk(here, "first.yaml", "second.yaml", "--dry-run")
    assert after.stderr.count("there is no file") == 1 and "./other/first.safetensors" in after.stderr
