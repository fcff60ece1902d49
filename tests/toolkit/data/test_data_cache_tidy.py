"""What killed writers left in a cache goes, what others are writing stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from toolkit.data.cache.rows import RowCache
from toolkit.data.cache.tidy import tidy, writing

pytest.importorskip("fcntl", reason="files cannot be locked here")
ROOT = Path(__file__).resolve().parents[3]
WRITER = """
import sys
from pathlib import Path
from toolkit.data.cache.tidy import writing
with writing(Path(sys.argv[1])):
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_program_left_goes_with_the_next_start_and_not_before(tmp_path: Path) -> None:
    left = tmp_path / ".aitk-tmp-0123456789ab-x.safetensors"
    left.write_bytes(b"half")
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "writing\n"
    RowCache(tmp_path)
    assert left.exists()
    process.kill()
    process.communicate()
    RowCache(tmp_path)
    assert not left.exists()


def test_several_may_write_at_once(tmp_path: Path) -> None:
    with writing(tmp_path), writing(tmp_path):
        cache = RowCache(tmp_path)
        cache.put(bytes(16), {"a": torch.ones(2)})
        cache.flush()
    assert len(RowCache(tmp_path)) == 1


def test_a_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    tidy(tmp_path / "absent")
