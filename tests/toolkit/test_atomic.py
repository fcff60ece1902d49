"""Whole or not at all: what a kill at any moment leaves of a file or a folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolkit.atomic import atomic_path, remove_leftovers, write_text

REPOSITORY = Path(__file__).parents[2]


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run Python code in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


HALF_WRITTEN = """
import sys, time
from toolkit.atomic import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    with temporary.open("w") as file:
        file.write("new, but not ")
        file.flush()
        print("half", flush=True)
        time.sleep(60)
"""


def test_kill_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    final = tmp_path / "weights.safetensors"
    final.write_text("old and whole")
    process = start(HALF_WRITTEN, final)
    assert process.stdout and process.stdout.readline() == "half\n"
    process.kill()
    process.communicate()
    assert final.read_text() == "old and whole"
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [final]


REWRITING = """
import sys
from toolkit.atomic import atomic_path
for number in range(10**9):
    with atomic_path(sys.argv[1]) as temporary:
        temporary.write_bytes(bytes([number % 256]) * 500_000)
    if number == 2:
        print("started", flush=True)
"""


def test_kill_at_any_moment_leaves_one_whole_version(tmp_path: Path) -> None:
    final = tmp_path / "optimizer.pt"
    for delay in (0.0, 0.003, 0.011, 0.02):
        process = start(REWRITING, final)
        assert process.stdout and process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.communicate()
        content = final.read_bytes()
        assert content == content[:1] * 500_000


KILLED_BETWEEN_RENAMES = """
import os, signal, sys
from pathlib import Path
from toolkit.atomic import atomic_path
rename, calls = os.replace, []
def replace(source, target):
    calls.append(source)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = replace
with atomic_path(sys.argv[1]) as temporary:
    temporary.mkdir()
    (temporary / "model").write_text("new")
"""


def test_folder_whose_replacement_was_cut_short_comes_back(tmp_path: Path) -> None:
    final = tmp_path / "run_000000500"
    final.mkdir()
    (final / "model").write_text("old")
    assert start(KILLED_BETWEEN_RENAMES, final).wait() == -signal.SIGKILL
    assert not final.exists()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run_000000500"]
    assert (final / "model").read_text() == "old"


def test_folder_replaces_a_full_folder(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with atomic_path(tmp_path / "model") as temporary:
            (temporary / "deep").mkdir(parents=True)
            (temporary / "deep" / "weights").write_text(text)
    assert (tmp_path / "model" / "deep" / "weights").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_error_removes_the_temporary_and_keeps_the_old_file(tmp_path: Path) -> None:
    final = tmp_path / "config.yaml"
    write_text(final, "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(final) as temporary:
        temporary.write_text("new")
        raise KeyboardInterrupt
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_temporary_keeps_the_suffix_and_makes_the_folder(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a" / "b" / "x.safetensors") as temporary:
        assert temporary.suffix == ".safetensors"
        temporary.write_bytes(b"1")
    assert os.listdir(tmp_path / "a" / "b") == ["x.safetensors"]


def test_leftovers_are_told_from_files_of_users(tmp_path: Path) -> None:
    users = {".tmp", "aitk-tmp-0123456789ab-x", ".aitk-notes", "x.tmp", ".aitk-tmp-short-x"}
    for name in users:
        (tmp_path / name).write_text("mine")
    remove_leftovers(tmp_path)
    assert set(os.listdir(tmp_path)) == users
