"""What a run shows: on a real pseudo terminal, in a real pipe, and what showing costs."""

import os
import pty
import re
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from toolkit.reporting.progress import Progress, bar

REPOSITORY = Path(__file__).parents[3]

RUN = """
import time
from toolkit.reporting.progress import Progress, bar
with bar("encode [captions]", 3) as advance:
    for _ in range(3):
        advance(1)
with Progress(400, 100, "my [lora]") as progress:
    for step in range(101, 401):
        progress.update(step, 50 / step, 1e-4)
        time.sleep(0.004)
        if step == 250:
            progress.note("saved [bold]run[/bold]_000000250.safetensors")
            with progress.bar("sample", 2) as advance:
                advance(1)
                advance(1)
"""


def in_terminal(width: int) -> str:
    """Run in a pseudo terminal and return all that it received."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(width)}
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        environment.pop(name, None)
    process = subprocess.Popen([sys.executable, "-c", RUN], cwd=REPOSITORY, stdout=follower, env=environment)
    os.close(follower)
    received = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        if not piece:
            break
        received += piece
    os.close(leader)
    assert process.wait() == 0
    return received.decode()


def test_terminal_gets_a_bar_that_moves_with_notes_above() -> None:
    received = in_terminal(120)
    assert "\x1b[" in received
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", received)
    frames = re.findall(r"(\d+)/400 loss ([\d.]+) lr 1\.00e-04 (?:[\d.]+ it/s ETA \d:\d\d:\d\d )?[\d.]+ [MG]B", text)
    shown = [int(step) for step, _ in frames]
    assert shown[0] == 101 and shown[-1] == 400 and shown == sorted(shown)
    assert float(frames[-1][1]) == 0.125
    # 1.2 s of work, or more on a busy machine: drawn a few times, not 300 times.
    assert 3 <= len(set(shown)) <= 40
    assert "saved [bold]run[/bold]_000000250.safetensors" in text
    assert "my [lora]" in text and "encode [captions]" in text and "2/2" in text


def test_numbers_find_room_in_80_columns() -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", in_terminal(80))
    assert re.search(r"400/400 loss 0\.1250 lr 1\.00e-04 [\d.]+ it/s ETA 0:00:00 [\d.]+ [MG]B", text)


def test_pipe_gets_few_plain_lines() -> None:
    done = subprocess.run([sys.executable, "-c", RUN], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout and "\r" not in done.stdout and not done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"encode \[captions\]: 3/3 in \d\.\d s", lines[0])
    assert re.fullmatch(r"step 101/400 loss 0\.4950 lr 1\.00e-04 [\d.]+ [MG]B", lines[1])
    assert re.fullmatch(r"step 1\d\d/400 loss [\d.]+ lr 1\.00e-04 [\d.]+ it/s ETA \d:\d\d:\d\d [\d.]+ [MG]B", lines[2])
    assert lines[-1].startswith("step 400/400 loss 0.1250 ") and "ETA 0:00:00" in lines[-1]
    assert "saved [bold]run[/bold]_000000250.safetensors" in lines
    assert any(line.startswith("sample: 2/2 in ") for line in lines)
    assert 16 <= sum(line.startswith("step ") for line in lines) <= 22


class Loss:
    """Stands for a loss on the device: counts how often the host asks for it."""

    asked = 0

    def __float__(self) -> float:
        self.asked += 1
        return 0.5


def test_update_asks_for_the_loss_only_when_it_draws() -> None:
    loss = Loss()
    with Progress(10**9, console=Console(file=StringIO())) as progress:
        begin = time.process_time()
        for step in range(1, 20_001):
            progress.update(step, loss, 1e-4)
        each = (time.process_time() - begin) / 20_000
    assert loss.asked == 2
    assert each < 20e-6


def test_last_step_is_shown_also_after_an_early_stop() -> None:
    output = StringIO()
    with Progress(1000, console=Console(file=output)) as progress:
        for step in (1, 2, 3):
            progress.update(step, 1.0, 1e-4)
    assert [line.split()[1] for line in output.getvalue().splitlines()] == ["1/1000", "3/1000"]


def test_long_lines_of_a_log_are_not_broken() -> None:
    output = StringIO()
    with Progress(10, console=Console(file=output, width=40)) as progress:
        progress.note("saved " + "long/" * 30)
        progress.update(10, 1.0, 1e-4)
    assert len(output.getvalue().splitlines()) == 2


def test_a_bar_tells_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("toolkit.reporting.progress.time.monotonic", lambda: now)
    output = StringIO()
    with bar("captions", 10, Console(file=output)) as advance:
        for _ in range(5):
            now += 2.5
            advance(1)
    with bar("making pictures", 2, Console(file=output)) as advance:
        for _ in range(3):
            now += 60
            advance(0.3)
    assert output.getvalue().splitlines() == [
        "captions: 4/10 0.40/s ETA 0:00:15",
        "captions: 5/10 in 12.5 s",
        "making pictures: 0.3/2 200 s each ETA 0:05:40",
        "making pictures: 0.6/2 200 s each ETA 0:04:40",
        "making pictures: 0.9/2 200 s each ETA 0:03:40",
        "making pictures: 0/2 in 180.0 s",
    ]


def test_the_first_step_is_slow_and_tells_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("toolkit.reporting.progress.time.monotonic", lambda: now)
    output = StringIO()
    with Progress(10, console=Console(file=output)) as progress:
        for step, seconds in ((1, 600), (2, 2)):
            now += seconds
            progress.update(step, 1.0, 1e-4)
    first, second = output.getvalue().splitlines()
    assert re.fullmatch(r"step 1/10 loss 1\.0000 lr 1\.00e-04 [\d.]+ [MG]B", first)
    assert re.fullmatch(r"step 2/10 loss 1\.0000 lr 1\.00e-04 2\.00 s/it ETA 0:00:16 [\d.]+ [MG]B", second)


def test_bar_of_a_failed_stage_lets_the_error_through() -> None:
    try:
        with bar("encode", 3, Console(file=StringIO())) as advance:
            advance(1)
            raise ValueError("broken")
    except ValueError as error:
        assert str(error) == "broken"
    else:
        raise AssertionError("the error was swallowed")


def test_run_goes_on_when_nobody_reads_its_pipe_any_more() -> None:
    code = """
import sys
from toolkit.reporting.progress import Progress, bar
with Progress(9) as progress:
    progress.update(1, 1.0, 1e-4)
    sys.stdin.readline()
    for step in range(2, 10):
        progress.update(step, 1.0, 1e-4)
    progress.note("saved")
with bar("captions", 1) as advance:
    advance(1)
print("to the end", file=sys.stderr)
"""
    pipe = subprocess.PIPE
    run = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    assert run.stdin and run.stdout and run.stderr
    assert run.stdout.readline().startswith("step 1/9")
    run.stdout.close()
    run.stdin.close()
    assert (run.stderr.read(), run.wait(60)) == ("to the end\n", 0)
