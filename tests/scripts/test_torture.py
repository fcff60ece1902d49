"""Kills at random moments, a few of them: docs/survival.md has the command for many."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "torture.py"


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="processes are copied by fork")
def test_a_run_that_is_killed_ends_as_one_in_peace(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "15", "--seed", "3", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "15 kills, 0 lost, 0 different"
