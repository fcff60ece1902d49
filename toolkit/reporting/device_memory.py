"""How much memory the run takes: of the GPU if it is on one, else of the process."""

from __future__ import annotations

import sys
from pathlib import Path


def memory_in_use() -> int:
    """Return the peak of the bytes that torch allocated on the GPU, or the bytes of RAM that the process holds."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    if torch is not None and torch.backends.mps.is_available():
        return torch.mps.driver_allocated_memory()
    return _resident()


def format_bytes(size: int) -> str:
    """Write a size for people: 812 MB, 11.4 GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _resident() -> int:
    """Return the bytes of RAM that this process holds; where the system does not say, the most it ever held."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        import os

        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
