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

context.PATIENCE = timedelta(seconds=2)
rank = int(os.environ["RANK"])

def work():
    time.sleep(2.5 * (rank == 0))

def is_lost(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        return lost_peers(error, os.environ)

work()
here = context.make_context("cpu", "fp32", 0, together=True)
work()
here.wait()
work()
assert here.gather(rank) == [0, 1]
if rank == 0:
    # it hangs in a step until the other one is tired of it, then it is gone
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.05)
    os._exit(0)
tired = is_lost(here.add_up, torch.zeros(1))
open(sys.argv[1], "w").close()
os._exit(0 if tired and is_lost(here.wait) else 1)
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes talk over gloo")


def test_the_others_wait_for_the_first_while_it_works(tmp_path: Path) -> None:
    """Before it comes, where all meet, and where they tell each other something; all longer than the patience."""
    command = [sys.executable, "-c", RANK, str(tmp_path / "tired")]
    assert run_ranks(command, 2, {**os.environ, "PYTHONPATH": str(ROOT)}) == 0
