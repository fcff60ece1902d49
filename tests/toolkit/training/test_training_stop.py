"""Real signals to a real process: the first one is noted, a second ctrl+c leaves, handlers come back."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from toolkit.training.stop import StopFlag

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import importlib.util, os, signal, sys, time
# the file alone: the package would import torch
spec = importlib.util.spec_from_file_location("stop", "toolkit/training/stop.py")
stop = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stop)
with stop.StopFlag(lambda text: print("told", flush=True)) as flag:
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


def test_a_stream_that_is_busy_does_not_break_the_run():
    def tell(text: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

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
