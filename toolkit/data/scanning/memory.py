"""Memory that a large computation has freed goes back to the system, where the allocators would keep it."""

import ctypes
import sys

MANY = 100_000
"""Of fewer rows, what is kept is not worth the time."""


def give_back(num_rows: int) -> None:
    """After something was computed for so many rows. Training holds what is left for days."""
    if num_rows < MANY:
        return
    if pyarrow := sys.modules.get("pyarrow"):
        pyarrow.default_memory_pool().release_unused()
    if sys.platform == "linux":
        # of glibc; other C libraries give back by themselves
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
