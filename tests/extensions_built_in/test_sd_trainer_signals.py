"""ctrl+c, SIGTERM and kill -9: what was saved stays whole, and the same command goes on from there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs import run_job

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")


def start(training: Any, last_line: str, number: int) -> tuple[int, str]:
    """Run as a user does, send a signal when a line begins with `last_line`; exit code and what was printed."""
    command = [sys.executable, str(ROOT / "run.py"), training.written()]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=training.path.parents[1]
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(last_line):
            process.send_signal(number)
            last_line = "once is enough"
    return process.wait(60), "".join(lines)


def long(training: Any, name: str) -> Any:
    """Steps enough that the signal arrives before the end."""
    return training(name, train={"steps": 99, "ema_config": {"use_ema": True}}, save={"save_every": 5})


def test_kill_loses_only_what_came_after_the_last_save(training: Any, identical: Any) -> None:
    run = long(training, "killed")
    code, printed = start(run, "step 11/", signal.SIGKILL)
    assert code == -signal.SIGKILL, printed
    saved = run.state()["step"]
    assert 10 <= saved < 99 and saved % 5 == 0
    end = {"train": {**run.process["train"], "steps": saved + 3}}
    run.but(**end).run()
    whole = long(training, "whole").but(**end).run()
    assert identical(run.state(), whole.state())
    assert identical(run.weights(), whole.weights())


def test_ctrl_c_finishes_the_step_saves_and_says_so(training: Any, identical: Any) -> None:
    run = long(training, "stopped")
    code, printed = start(run, "step 11/", signal.SIGINT)
    assert code == 130, printed
    saved = run.state()["step"]
    assert 11 <= saved < 99, printed
    assert "stopping: finishing this step and saving" in printed
    assert f"job 'stopped' was stopped: saved at step {saved} in {run.path}; the same command continues" in printed
    assert "Traceback" not in printed
    assert run.header(saved)["ss_steps"] == str(saved)


def test_sigterm_stops_like_ctrl_c(training: Any, signal_at: Any) -> None:
    run = training()
    with signal_at("step 2/4", number=signal.SIGTERM):
        assert run.from_command_line() == 130
    assert run.state()["step"] == 2
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_ctrl_c_leaves_at_once_and_corrupts_nothing(
    training: Any, signal_at: Any, identical: Any, capsys: Any
) -> None:
    run = training(save={"save_every": 1})
    with signal_at("step 3/4", times=2):
        assert run.from_command_line() == 130
    assert "was interrupted; what was saved before is complete" in capsys.readouterr().err
    assert run.state()["step"] == 2 and not run.step_file(3).exists()
    run.run()
    whole = training("whole", save={"save_every": 1}).run()
    assert identical(run.state(), whole.state())


def test_ctrl_c_before_the_first_step_ends_with_130(training: Any, signal_at: Any, identical: Any) -> None:
    run = training()
    with signal_at("training samples in"):
        assert run.from_command_line() == 130
    assert not (run.path / "optimizer.pt").exists()
    run_job(run.config)
    assert identical(run.state(), training("whole").run().state())


def test_other_jobs_of_the_command_are_not_started_after_ctrl_c(training: Any, signal_at: Any) -> None:
    first, second = training("first"), training("second")
    with signal_at("step 1/4"):
        assert first.from_command_line(second.written()) == 130
    assert not second.path.exists()
