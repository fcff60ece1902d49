"""How long ranks wait for the first: as long as it works, but not for one that is gone or hangs in a step."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from toolkit.launch.local import run_ranks

ROOT = Path(__file__).resolve().parents[3]
RANK = """
import os, sys, time
from datetime import timedelta
import torch
from toolkit import context
from toolkit.launch.environment import lost_peers

context.PATIENCE = timedelta(seconds=1)
rank = int(os.environ["RANK"])

def work():
    time.sleep(1.5 * (rank == 0))

def lost(call, *arguments):
    begin = time.monotonic()
    try:
        call(*arguments)
    except Exception as error:
        assert lost_peers(error, os.environ), error
        return time.monotonic() - begin
    raise AssertionError("nothing is missed")

work()
here = context.make_context("cpu", "fp32", 0, together=True)
work()
here.wait()
work()
assert here.gather(rank) == [0, 1]
if rank == 0:
    time.sleep(2.5)
else:
    seconds = [lost(here.add_up, torch.zeros(1)), lost(here.wait)]
    print(*seconds, file=open(sys.argv[1], "w"), flush=True)
os._exit(0)
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes talk over gloo")


def test_the_others_wait_for_the_first_while_it_works(tmp_path: Path) -> None:
    """Before it comes, where all meet, and where they tell each other something; all longer than the patience."""
    command = [sys.executable, "-c", RANK, str(tmp_path / "seconds")]
    assert run_ranks(command, 2, {**os.environ, "PYTHONPATH": str(ROOT)}) == 0
    in_step, after_its_end = map(float, (tmp_path / "seconds").read_text().split())
    assert in_step < 2 and after_its_end < 5
