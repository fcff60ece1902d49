"""What a run writes for those who watch it, and who may write: real processes, files cut short."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.atomic import remove_leftovers
from toolkit.launch.alive import birth, is_alive
from toolkit.launch.record import (
    Record,
    close,
    is_live,
    mark_cancelled,
    read_background,
    read_status,
    submissions,
    was_cancelled,
    write_background,
)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """Another process, at work."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_process_is_told_from_one_that_has_ended_and_from_another_of_its_pid(other: subprocess.Popen[bytes]) -> None:
    born = birth(other.pid)
    assert born and is_alive(other.pid, born)
    assert not is_alive(other.pid, birth(os.getpid())), "another process, born at another time"
    other.kill()
    time.sleep(0.1)
    assert not is_alive(other.pid, born), "killed, and not yet waited for"
    other.wait()
    assert birth(other.pid) == ""


def test_record_of_a_run_from_its_begin_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    record = Record(folder)
    assert is_live(read_status(folder))
    record.note(step=7, total=10, seconds_per_step=0.5, checkpoint=5)
    noted = read_status(folder)
    assert {key: noted[key] for key in ("state", "step", "total", "checkpoint", "pid", "job_id")} == {
        "state": "running",
        "step": 7,
        "total": 10,
        "checkpoint": 5,
        "pid": os.getpid(),
        "job_id": None,
    }
    close(folder, "failed", "the disk is full")
    ended = read_status(folder)
    assert (ended["state"], ended["reason"], ended["step"]) == ("failed", "the disk is full", 7)
    assert not is_live(ended)
    assert Record(folder).folder == folder and read_status(folder)["checkpoint"] == 5, "known until it has looked"
    assert os.listdir(folder) == ["status.json"]


def test_what_a_killed_writer_leaves_is_cleared_away(tmp_path: Path) -> None:
    Record(tmp_path)
    left = tmp_path / ".aitk-tmp-0123456789ab-status.json"
    left.write_text("{", encoding="utf-8")
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["status.json"]


def test_nobody_ends_the_record_of_a_run_that_works(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    Record(tmp_path)
    fields = {**read_status(tmp_path), "pid": other.pid, "birth": birth(other.pid)}
    (tmp_path / "status.json").write_text(json.dumps(fields), encoding="utf-8")
    close(tmp_path, "done")
    assert read_status(tmp_path)["state"] == "running"
    other.kill()
    other.wait()
    close(tmp_path, "failed", "exit code 9")
    assert read_status(tmp_path)["state"] == "failed", "who started a process that is gone says how it ended"
    close(tmp_path, "done")
    assert read_status(tmp_path)["state"] == "failed", "an end that was noted stays"


def test_a_full_disk_or_a_folder_that_is_a_file_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("", encoding="utf-8")
    Record(tmp_path / "run").note(step=1)
    assert read_status(tmp_path / "run") == {}


def test_damaged_files_count_as_none(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "run', encoding="utf-8")
    (tmp_path / "background.json").write_text("[]", encoding="utf-8")
    (tmp_path / "slurm").mkdir()
    lines = '{"job_id": 12, "time": 1.0}\n{"time": 2.0}\n{"job_id": "13_2", "time": 3.0}\n{"job_'
    (tmp_path / "slurm/jobs.jsonl").write_text(lines, encoding="utf-8")
    assert read_status(tmp_path) == read_background(tmp_path) == {}
    assert [entry["job_id"] for entry in submissions(tmp_path)] == ["12", "13_2"]


def test_run_of_another_machine_counts_as_alive_until_it_was_silent_for_long(tmp_path: Path) -> None:
    Record(tmp_path)
    fields = {**read_status(tmp_path), "host": "elsewhere"}
    assert is_live(fields)
    assert not is_live({**fields, "updated": time.time() - 3600})


def test_background_process_and_cancelled_jobs_are_remembered(tmp_path: Path) -> None:
    write_background(tmp_path, os.getpid(), tmp_path / "log.txt")
    assert is_live(read_background(tmp_path))
    mark_cancelled(tmp_path, "12")
    assert was_cancelled(tmp_path, "12") and not was_cancelled(tmp_path, "13")
