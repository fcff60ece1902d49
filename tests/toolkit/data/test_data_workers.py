"""Worker processes: results in order, small, gone with their parent, and errors that name what they were about."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toolkit
from toolkit.data.items import expand
from toolkit.data.pictures.decoding import Decoded, Unread, Wish, decode
from toolkit.data.pictures.pixels import item_pixels
from toolkit.data.records import Record
from toolkit.data.workers import WorkerError, Workers

ROOT = Path(toolkit.__file__).parent.parent
PICTURE = Path("a.png")


def wish(path: Path, size: tuple[int, int] = (64, 48)) -> Wish:
    return Wish(expand([Record(path, path.name, *size)], [64], 16)[0])


def pid_of(_: object) -> int:
    return os.getpid()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        paths.append(tmp_path / f"{number}.png")
    return paths


@pytest.fixture(scope="module")
def pool() -> Iterator[Workers]:
    with Workers(2, 2) as workers:
        yield workers


def is_there(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_pictures_come_in_order_as_they_are_without_workers(pool: Workers, pictures: list[Path]) -> None:
    wishes = [wish(path) for path in pictures]
    expected = [item_pixels(each.item) for each in wishes]
    for workers, apart in ((pool, True), (pool, False), (Workers(0), True)):
        found = list(workers.map(decode, wishes, apart=apart))
        assert all(np.array_equal(each.pixels, other) for each, other in zip(found, expected, strict=True))
        assert all(isinstance(each, Decoded) and each.pixels.flags.writeable for each in found)
    pids = set(pool.map(pid_of, range(40)))
    assert len(pids) == 2 and os.getpid() not in pids


def test_so_many_results_are_made_ahead_and_no_more(pool: Workers) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = pool.map(pid_of, tasks(), ahead=7)
    next(results)
    assert len(taken) == 8
    results.close()
    assert next(pool.map(pid_of, [0]))


def test_what_cannot_be_read_is_a_result_and_a_bug_is_an_error_that_names_the_picture(
    pool: Workers, tmp_path: Path, pictures: list[Path]
) -> None:
    path = tmp_path / "none.png"
    (found,) = pool.map(decode, [wish(path)])
    assert isinstance(found, Unread) and str(found.error) == f"{path}: no such file"
    with pytest.raises(WorkerError, match=r"a\.png: AttributeError") as caught:
        list(pool.map(decode, [None], lambda _: "a.png"))  # type: ignore[list-item]
    assert "decoding.py" in str(caught.value.__cause__)
    with pytest.raises(WorkerError, match="cannot be sent"):
        list(pool.map(lambda _: 1, [None]))
    assert len(list(pool.map(decode, [wish(path) for path in pictures]))) == 12


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_worker_stays_small(pool: Workers, pictures: list[Path]) -> None:
    list(pool.map(decode, [wish(path) for path in pictures]))
    for pid in set(pool.map(pid_of, range(20))):
        peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 150 * 1024
        mapped = Path(f"/proc/{pid}/maps").read_text()
        assert not any(name in mapped for name in ("libtorch", "libarrow", "diffusers"))


def test_a_worker_that_dies_is_an_error_that_names_the_picture() -> None:
    with Workers(1) as workers:
        (pid,) = workers.map(pid_of, [0])
        results = workers.map(time.sleep, [60.0], lambda _: "large.png")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"large\.png was killed, probably because memory ran out"):
            next(results)


def test_signals_for_the_run_do_not_reach_workers_and_closing_ends_them() -> None:
    with Workers(2) as workers:
        pids = set(workers.map(pid_of, range(40)))
        for pid in pids:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
            assert os.getpgid(pid) != os.getpgid(0)
        assert set(workers.map(pid_of, range(40))) <= pids
        waiting = workers.call(time.sleep, 60.0, "x")
    assert waiting.cancelled() and not any(map(is_there, pids))


def test_a_pool_that_nobody_closed_ends_with_its_last_reference() -> None:
    workers = Workers(1)
    (pid,) = workers.map(pid_of, [0])
    del workers
    assert wait_until(lambda: not is_there(pid))


SCRIPT = """
import sys, time
sys.path.insert(0, {root!r})
from toolkit.data.workers import Workers
import os
print("main", os.getpid(), flush=True)
workers = Workers(2)
print(*set(workers.map(os.path.abspath, ["."] * 4)), flush=True)
print(*set(workers.map(time.sleep, [0.05] * 4)), flush=True)
print(*[process.pid for process in workers._shared.processes], flush=True)
time.sleep({rest})
"""


def test_a_script_without_a_main_guard_starts_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), rest=0))
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert sum(line.startswith("main") for line in found.stdout.splitlines()) == 1
    assert found.stdout.splitlines()[1] == str(tmp_path)


def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = SCRIPT.format(root=str(ROOT), rest=60)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(4)]
        pids = list(map(int, lines[3].split()))
        assert len(pids) == 2 and all(map(is_there, pids))
        process.kill()
    assert wait_until(lambda: not any(map(is_there, pids)))
