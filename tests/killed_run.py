"""Jobs that are killed while they write, for tests: in copies of this process, which has imported what they need."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs import run_job

kills = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes are copied by fork")


def kill_when(is_time: Callable[[], bool], work: Callable[..., Any], *args: Any) -> None:
    """Call `work` in a copy of this process, and kill that as soon as it is time."""
    child = multiprocessing.get_context("fork").Process(target=work, args=args)
    child.start()
    try:
        end = time.monotonic() + 240
        while not is_time():
            assert child.is_alive() and time.monotonic() < end
            time.sleep(0.01)
    finally:
        child.kill()
        child.join()


def killed(config: dict[str, Any], folder: Path, most: int) -> dict[Path, bytes]:
    """Kill a job that would make `most` pictures in a folder after its third; what it leaves, all of it whole."""
    kill_when(lambda: len(list(folder.glob("[!.]*.png"))) >= 3, run_job, config)
    found = sorted(folder.glob("[!.]*.png"))
    assert 3 <= len(found) < most
    for path in found:
        Image.open(path).load()
    return {path: path.read_bytes() for path in found}
