"""What a run shows while it works: a live bar on a terminal, plain lines in a pipe or a log file.

`update` is on the step path: between two drawings it keeps references and reads a clock, no more. The loss may stay on
the device; it is read when something is drawn.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from statistics import median
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from toolkit.reporting.device_memory import format_bytes, memory_in_use

# One drawing takes rich about 4 ms.
REFRESH_S = 0.5
LINE_S = 10.0
LINES_PER_RUN = 20

Advance = Callable[[float], None]


class Number(Protocol):
    """What becomes a float when it is shown: a float, or a tensor of one element without its graph."""

    def __float__(self) -> float: ...


class Progress:
    """The display of a training run from step `start` to step `total`; a context manager."""

    def __init__(self, total: int, start: int = 0, name: str = "", console: Console | None = None) -> None:
        self.total = total
        self._console = console or Console()
        self._live = _live_display(self._console) if _is_live(self._console) else None
        self._task = self._live.add_task(name, total=total, completed=start, stats="") if self._live else None
        self._speed = Speed()
        # The first step is always drawn, so that a run shows at once that it works.
        self._next_time = 0.0
        self._next_step = start
        self._drawn = -1
        self._latest: tuple[int, Number, float] | None = None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._latest and self._latest[0] != self._drawn:
            self._draw(time.monotonic(), *self._latest)
        if self._live:
            self._live.stop()

    def update(self, step: int, loss: Number, lr: float) -> None:
        """Note that `step` updates are done; draws at most twice a second."""
        self._latest = (step, loss, lr)
        now = time.monotonic()
        if now >= self._next_time or step >= self._next_step:
            self._draw(now, step, loss, lr)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        _print(self._live.console if self._live else self._console, text)

    def bar(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """Show a second bar below this one, such as that of the pictures being sampled."""
        return _live_bar(self._live, title, total) if self._live else _plain_bar(self._console, title, total)

    def _draw(self, now: float, step: int, loss: Number, lr: float) -> None:
        self._drawn = step
        self._speed.mark(now, step)
        stats = _stats(float(loss), lr, self._speed.seconds_per_step, self.total - step)
        if self._live and self._task is not None:
            self._next_time, self._next_step = now + REFRESH_S, self.total
            self._live.update(self._task, completed=step, stats=stats, refresh=True)
        else:
            self._next_time, self._next_step = now + LINE_S, min(step + self.total // LINES_PER_RUN + 1, self.total)
            _print(self._console, f"step {step}/{self.total} {stats}")


def bar(title: str, total: int, console: Console | None = None) -> AbstractContextManager[Advance]:
    """Show how far a stage such as caching is; the block calls `advance(n)`."""
    console = console or Console()
    return _own_live_bar(console, title, total) if _is_live(console) else _plain_bar(console, title, total)


class _Filling:
    """How far a bar is, and how fast it fills: over the last calls, as some are of much and some of little."""

    def __init__(self, total: int) -> None:
        self.done, self._total = 0.0, total
        self._marks = deque([(time.monotonic(), 0.0)], maxlen=21)

    def add(self, count: float, now: float) -> None:
        """So much more is done; parts of a whole add up to it."""
        self.done = round(self.done + count, 6)
        self._marks.append((now, self.done))

    @property
    def stats(self) -> str:
        """Speed and time left, once they can be told."""
        (begin, before), (now, done) = self._marks[0], self._marks[-1]
        if done <= before or now <= begin:
            return ""
        speed = (done - before) / (now - begin)
        shown = f"{speed:.2f}/s" if speed >= 0.1 else f"{1 / speed:.0f} s each"
        return f"{shown} ETA {_clock((self._total - done) / speed)}"


class Speed:
    """Of steps: the median over the last intervals, so that neither a pause for pictures nor the first step counts."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        self._paces: deque[float] = deque(maxlen=25)

    def mark(self, now: float, step: int) -> None:
        """Note that `step` updates are done."""
        if self._last is None:
            self._last = now, step
        begin, before = self._last
        if step > before and now > begin:
            self._paces.append((now - begin) / (step - before))
            self._last = now, step

    @property
    def seconds_per_step(self) -> float | None:
        """None until it is known of a step."""
        return median(self._paces) if self._paces else None


def _stats(loss: float, lr: float, pace: float | None, left: int) -> str:
    """Write the numbers of one step; `pace` in seconds per step."""
    speed = ""
    if pace is not None:
        speed = f"{1 / pace:.2f} it/s" if pace <= 1 else f"{pace:.2f} s/it"
        speed += f" ETA {_clock(left * pace)} "
    return f"loss {loss:.4f} lr {lr:.2e} {speed}{format_bytes(memory_in_use())}"


def _clock(seconds: float) -> str:
    whole = math.ceil(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _is_live(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal


def _print(console: Console, text: str) -> None:
    """Print text as it is: prompts and paths contain brackets, and a log has no width."""
    # when nobody reads a pipe any more, rich would end the run; from then on it is silent
    with suppress(OSError, SystemExit):
        console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Display(RichProgress):
    """Goes silent when the terminal is closed: a run that stops for that still has to save."""

    def refresh(self) -> None:
        with suppress(OSError):
            super().refresh()

    def stop(self) -> None:
        with suppress(OSError):
            super().stop()


def _live_display(console: Console) -> RichProgress:
    """Return a display that draws only when told to: a refreshing thread would compete with the step."""
    # In 80 columns all numbers have to find room, so the name gives way.
    name_width = 24 if console.width >= 100 else 10
    return _Display(
        TextColumn("{task.description}", markup=False, table_column=Column(max_width=name_width, no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(min_width=3, ratio=1)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[stats]}", markup=False, table_column=Column(no_wrap=True)),
        console=console,
        auto_refresh=False,
        expand=True,
    )


@contextmanager
def _own_live_bar(console: Console, title: str, total: int) -> Iterator[Advance]:
    with _live_display(console) as display, _live_bar(display, title, total, remove=False) as advance:
        yield advance


@contextmanager
def _live_bar(display: RichProgress, title: str, total: int, remove: bool = True) -> Iterator[Advance]:
    task = display.add_task(title, total=total, stats="")
    due, filling = 0.0, _Filling(total)

    def advance(count: float = 1) -> None:
        nonlocal due
        now = time.monotonic()
        filling.add(count, now)
        display.update(task, completed=filling.done, stats=filling.stats, refresh=now >= due)
        due = now + REFRESH_S if now >= due else due

    try:
        yield advance
    finally:
        display.refresh()
        if remove:
            display.remove_task(task)


@contextmanager
def _plain_bar(console: Console, title: str, total: int) -> Iterator[Advance]:
    filling = _Filling(total)
    begun = time.monotonic()
    due = begun + LINE_S

    def advance(count: float = 1) -> None:
        nonlocal due
        now = time.monotonic()
        filling.add(count, now)
        if now >= due and filling.done < total:
            done = f"{filling.done:.1f}".removesuffix(".0")
            _print(console, f"{title}: {done}/{total} {filling.stats}")
            due = now + LINE_S

    yield advance
    _print(console, f"{title}: {int(filling.done)}/{total} in {time.monotonic() - begun:.1f} s")
