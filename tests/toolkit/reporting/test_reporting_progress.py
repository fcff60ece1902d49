"""What a run shows: on a real pseudo terminal, in a real pipe, and what showing costs."""

import os
import pty
import re
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

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
    frames = re.findall(r"(\d+)/400 loss ([\d.]+) lr 1\.00e-04 [\d.]+ it/s ETA \d:\d\d:\d\d \d+ MB", text)
    shown = [int(step) for step, _ in frames]
    assert shown[0] == 101 and shown[-1] == 400 and shown == sorted(shown)
    assert float(frames[-1][1]) == 0.125
    # 1.2 s of work, or more on a busy machine: drawn a few times, not 300 times.
    assert 3 <= len(set(shown)) <= 40
    assert "saved [bold]run[/bold]_000000250.safetensors" in text
    assert "my [lora]" in text and "encode [captions]" in text and "2/2" in text


def test_numbers_find_room_in_80_columns() -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", in_terminal(80))
    assert re.search(r"400/400 loss 0\.1250 lr 1\.00e-04 [\d.]+ it/s ETA 0:00:00 \d+ MB", text)


def test_pipe_gets_few_plain_lines() -> None:
    done = subprocess.run([sys.executable, "-c", RUN], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout and "\r" not in done.stdout and not done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"encode \[captions\]: 3/3 in \d\.\d s", lines[0])
    assert re.fullmatch(r"step 101/400 loss 0\.4950 lr 1\.00e-04 [\d.]+ it/s ETA \d:\d\d:\d\d \d+ MB", lines[1])
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
        begin = time.perf_counter()
        for step in range(1, 20_001):
            progress.update(step, loss, 1e-4)
        each = (time.perf_counter() - begin) / 20_000
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


def test_bar_of_a_failed_stage_lets_the_error_through() -> None:
    try:
        with bar("encode", 3, Console(file=StringIO())) as advance:
            advance(1)
            raise ValueError("broken")
    except ValueError as error:
        assert str(error) == "broken"
    else:
        raise AssertionError("the error was swallowed")
