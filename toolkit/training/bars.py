"""What the encoders of a run show of their progress."""

from collections.abc import Callable
from contextlib import AbstractContextManager

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""(title, total) -> a progress bar whose block calls `advance(count)`."""


def counting(advance: Callable[[int], None]) -> Callable[[int, int], None]:
    """A callback for (done, total) that moves a bar; `done` starts again with every part of the work."""
    seen = 0

    def on_progress(done: int, total: int) -> None:
        nonlocal seen
        advance(done - seen)
        seen = 0 if done == total else done

    return on_progress
