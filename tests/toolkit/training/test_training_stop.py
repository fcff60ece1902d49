"""Real signals to a real process: the first one is noted, a second ctrl+c leaves, handlers come back."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from toolkit.training.stop import StopFlag

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys, time
from toolkit.training.stop import StopFlag
with StopFlag(lambda text: print("told", flush=True)) as flag:
    print("ready", flush=True)
    for line in sys.stdin:
        time.sleep(0.05)
        print("requested" if flag.requested else "going on", flush=True)
print("left", flush=True)
"""


class Child:
    """A process that answers every line with what its flag says."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def ask(self) -> str:
        assert self.process.stdin
        print(file=self.process.stdin, flush=True)
        return self.line()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[str, int]:
        output, _ = self.process.communicate(timeout=20)
        return output, self.process.returncode


AT_TERMINAL = """
import fcntl, sys, termios, time
from toolkit.reporting.progress import Progress
from toolkit.training.stop import StopFlag
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
with StopFlag() as flag, Progress(1000) as progress:
    for step in range(1, 1000):
        progress.update(step, 1.0, 1e-4)
        time.sleep(0.02)
        if flag.requested:
            break
    progress.update(1000, 1.0, 1e-4)
    progress.note("saved")
open(sys.argv[1], "w").write("stopped" if flag.requested else "not asked to stop")
"""


def test_a_closed_terminal_is_like_sigterm(tmp_path: Path):
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", AT_TERMINAL, str(tmp_path / "said")],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    assert os.read(leader, 1)
    os.close(leader)
    assert child.wait(60) == 0 and (tmp_path / "said").read_text() == "stopped"


def test_nohup_is_obeyed():
    kept = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopFlag() as flag:
            signal.raise_signal(signal.SIGHUP)
            assert not flag.requested
    finally:
        signal.signal(signal.SIGHUP, kept)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_process_goes_on(number: int):
    child = Child()
    assert child.ask() == "going on"
    child.send(number)
    assert child.line() == "told"
    assert child.ask() == "requested"
    assert child.end() == ("left\n", 0)


def test_a_second_ctrl_c_leaves_at_once():
    child = Child()
    child.send(signal.SIGINT)
    assert child.line() == "told"
    child.send(signal.SIGINT)
    output, code = child.end()
    assert "left" not in output and code != 0


def test_a_second_sigterm_is_patient():
    child = Child()
    for _ in range(2):
        child.send(signal.SIGTERM)
        assert child.line() == "told"
    assert child.end() == ("left\n", 0)


def test_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopFlag() as flag:
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == [flag._on_signal] * 2
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("error", [RuntimeError("reentrant call inside <_io.BufferedWriter>"), BrokenPipeError()])
def test_a_stream_that_is_busy_or_gone_does_not_break_the_run(error: Exception):
    def tell(text: str) -> None:
        raise error

    with StopFlag(tell) as flag:
        signal.raise_signal(signal.SIGTERM)
        assert flag.requested


def test_outside_the_main_thread_it_waits_for_nobody():
    flags: list[bool] = []

    def work() -> None:
        with StopFlag() as flag:
            flags.append(flag.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert flags == [False]
