"""Prints how much memory loading took at its worst moment, as JSON; started by test_models_fill.py.

A process of its own: in one that has worked before, the heap has room that hides what is taken.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from toolkit.models.memory import trim_heap
from toolkit.models.quantize import Quantization
from toolkit.models.source import Source
from toolkit.models.wrapped import move


def anonymous_memory() -> int:
    """Bytes of this process that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@contextmanager
def peak(found: dict[str, int], name: str) -> Iterator[None]:
    """Write down how much more memory than before was in use at the worst moment inside the block."""
    gc.collect()
    trim_heap()
    before, stop = anonymous_memory(), threading.Event()
    found[name] = 0

    def watch() -> None:
        while not stop.is_set():
            found[name] = max(found[name], anonymous_memory() - before)
            time.sleep(0.0005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def settle(name: str, part: torch.nn.Module) -> None:
    """Quantize a block as soon as it is filled."""
    if name:
        Quantization("qint8").apply(name, part)
    move(part, torch.device("cpu"))


def main() -> None:
    """Load in three ways."""
    source = Source(sys.argv[1])
    empty = source.empty("transformer", torch.float32)
    found = {
        "block": 4 * sum(param.numel() for param in empty.single_transformer_blocks[0].parameters()),
        "whole": 4 * sum(param.numel() for param in empty.parameters()),
    }
    with peak(found, "fp32"):
        source.load("transformer", torch.float32)
    with peak(found, "bf16"):
        source.load("transformer", torch.bfloat16)
    with peak(found, "qint8"):
        source.load("transformer", torch.float32, settle)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
