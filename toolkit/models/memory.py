"""Giving memory back: to the system, and on the device."""

from __future__ import annotations

import ctypes
import functools
import gc
from collections.abc import Callable

import torch


def free_memory(device: torch.device) -> None:
    """Return what nobody uses any more to the system and to the device."""
    gc.collect()
    trim_heap()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def trim_heap() -> None:
    """Return freed heap memory to the system.

    glibc keeps it, in pieces between tensors that stay, so that loading block by block could take as much memory as
    loading everything at once.
    """
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], object]:
    try:
        return ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):  # another system, or another C library
        return lambda keep: None
