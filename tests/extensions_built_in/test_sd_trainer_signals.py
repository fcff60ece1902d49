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


def kill_at(training: Any, last_line: str) -> None:
    """Run as a user does, and kill -9 when a line begins with `last_line`."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), training.written()], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(last_line):
            process.kill()
    assert process.wait(60) == -signal.SIGKILL, lines


def test_kill_loses_only_what_came_after_the_last_save(training: Any, identical: Any) -> None:
    def long(name: str, steps: int = 99) -> Any:
        return training(name, train={"steps": steps, "ema_config": {"use_ema": True}}, save={"save_every": 5})

    kill_at(long("killed"), "step 11/")
    saved = long("killed").state()["step"]
    assert 10 <= saved < 99 and saved % 5 == 0
    killed, whole = long("killed", saved + 3).run(), long("whole", saved + 3).run()
    assert identical(killed.state(), whole.state())
    assert identical(killed.weights(), whole.weights())


def test_ctrl_c_finishes_the_step_saves_and_says_so(training: Any, signal_at: Any, capfd: Any) -> None:
    run = training("stopped")
    with signal_at("step 3/4"):
        assert run.from_command_line() == 130
    printed = capfd.readouterr().err
    assert "stopping: finishing this step and saving (ctrl+c again leaves without saving)" in printed
    assert f"job 'stopped' was stopped: saved at step 3 in {run.path}; the same command continues there" in printed
    assert "Traceback" not in printed
    assert run.state()["step"] == 3 and run.header(3)["ss_steps"] == "3"


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
