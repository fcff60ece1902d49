"""The heartbeat of a training: how far it is, and how it ended, in status.json."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.launch.queue import Queue
from toolkit.launch.record import Record, read_status
from toolkit.launch.standing import standing
from toolkit.run_folder import RunFolder, RunFolderBusy
from toolkit.trainer.heartbeat import EVERY_S, Heartbeat


def noted(training: Any) -> tuple[Any, ...]:
    status = read_status(training.path)
    return status["state"], status["step"], status["total"], status["checkpoint"]


def test_status_of_a_training_that_was_stopped_and_then_done(training: Any, signal_at: Any) -> None:
    run = training()
    with signal_at("step 2/4"):
        assert run.from_command_line() == 130
    assert noted(run) == ("stopped", 2, 4, 2)
    assert read_status(run.path)["reason"] == f"saved at step 2 in {run.path}; the same command continues there"
    run.run()
    assert noted(run) == ("done", 4, 4, 4)
    assert read_status(run.path)["reason"] == ""
    found = standing(run.path, Queue())
    assert found is not None and (found.state, found.seconds_left) == ("done", None)


def test_failure_is_told_as_on_the_console(training: Any, capfd: Any) -> None:
    run = training(train={"lr": 1e30}, save={"save_every": 1})
    assert run.from_command_line() == 1
    status = read_status(run.path)
    assert status["state"] == "failed" and status["reason"]
    assert f"job 'run' failed: {status['reason']}" in capfd.readouterr().err


def test_run_that_is_refused_leaves_the_record_of_the_one_at_work(training: Any) -> None:
    run = training()
    folder = RunFolder(run.path, run.name)
    with folder.lock():
        Record(run.path).note(step=3, total=4)
        with pytest.raises(RunFolderBusy):
            run.run()
    assert noted(run) == ("running", 3, 4, None)


def test_heartbeat_looks_at_a_clock_and_writes_seldom(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("toolkit.trainer.heartbeat.time.monotonic", lambda: now)
    beat = Heartbeat(Record(tmp_path), RunFolder(tmp_path, "run"), total=1000, step=10)
    assert (read_status(tmp_path)["step"], read_status(tmp_path)["seconds_per_step"]) == (10, None)
    seen = []
    for step in range(11, 61):
        now += 0.5
        beat.after_step(_At(step), None)  # type: ignore[arg-type]
        seen.append(read_status(tmp_path)["step"])
    assert seen[0] == 11, "the first step is told at once"
    assert len(set(seen)) == 1 + int(49 * 0.5 / EVERY_S)
    assert read_status(tmp_path)["seconds_per_step"] == pytest.approx(0.5)


class _At:
    """The state of a training, as far as a heartbeat looks at it."""

    def __init__(self, step: int) -> None:
        self.step = step
