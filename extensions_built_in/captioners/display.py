"""How far captioning is: done of total, pictures per second and the time left, as measured, not as hoped."""

from __future__ import annotations

import math
import time
from collections import deque

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

REFRESH_S = 0.5
LINE_S = 10.0
WINDOW = 20
"""Batches over which the speed is measured."""


class Display:
    """A live bar on a terminal, plain lines elsewhere; a context manager."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.total, self.done = total, 0
        self.console = console or Console()
        columns = (
            TextColumn("captions"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[stats]}"),
        )
        is_live = self.console.is_terminal and not self.console.is_dumb_terminal
        self._live = Progress(*columns, console=self.console, auto_refresh=False, expand=True) if is_live else None
        self._task = self._live.add_task("captions", total=total, stats="") if self._live else None
        self._marks = deque([(time.monotonic(), 0)], maxlen=WINDOW + 1)
        self._due = 0.0
        self._drawn = 0

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._drawn != self.done:
            self._draw(time.monotonic())
        if self._live:
            self._live.stop()

    @property
    def stats(self) -> str:
        """Speed and time left, from the last batches."""
        (begin, before), (end, done) = self._marks[0], self._marks[-1]
        if done == before or end <= begin:
            return ""
        speed = (done - before) / (end - begin)
        seconds = math.ceil((self.total - done) / speed)
        left = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return f"{speed:.2f} images/s, {left} left"

    def advance(self, count: int) -> None:
        """So many more pictures are done with."""
        self.done += count
        now = time.monotonic()
        self._marks.append((now, self.done))
        if now >= self._due:
            self._draw(now)

    def note(self, text: str) -> None:
        """Print a line above the bar; names may hold brackets."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _draw(self, now: float) -> None:
        self._drawn = self.done
        if self._live and self._task is not None:
            self._due = now + REFRESH_S
            self._live.update(self._task, completed=self.done, stats=self.stats, refresh=True)
        else:
            self._due = now + LINE_S
            self.note(f"captions: {self.done}/{self.total} {self.stats}".rstrip())
