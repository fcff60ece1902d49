"""What may happen to a run between two starts or in the middle of one: it goes on, and ends as if nothing had."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_disk import mount_small

from jobs import Stopped, get_job
from toolkit.cli.app import run_command_line
from toolkit.cli.run import run_jobs
from toolkit.run_folder import is_complete
from toolkit.sampling.picture_files import list_pictures

SAMPLE = {"prompts": ["a cat"], "width": 32, "height": 32, "sample_steps": 1, "sample_every": 2, "format": "png"}
OPTIONS: dict[str, Any] = {
    "save": {"save_every": 1, "max_step_saves_to_keep": 2},
    "sample": SAMPLE,
    "train": {"ema_config": {"use_ema": True, "ema_decay": 0.9}},
}
_watchers: list[Callable[[str, tuple[Any, ...]], None]] = []
sys.addaudithook(lambda event, args: _watchers[0](event, args) if _watchers else None)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Runs that several tests need, made by the first of them."""
    return {"folder": tmp_path_factory.mktemp("kept")}


@pytest.fixture
def whole(training: Any, kept: dict[str, Any]) -> Any:
    """The run that nothing happens to, with caches of its own. Do not write to it."""
    if "whole" not in kept:
        kept["whole"] = training(training_folder=str(kept["folder"] / "whole"), **OPTIONS).run()
    return kept["whole"]


@pytest.fixture
def parts(training: Any, kept: dict[str, Any], signal_at: Any) -> Any:
    """The same run, stopped at step 2 of 4."""
    folder, run = kept["folder"] / "parts", training(**OPTIONS)
    if not folder.exists():
        with signal_at("step 2/4"), pytest.raises(Stopped):
            training(training_folder=str(folder), **OPTIONS).run()
    shutil.copytree(folder, run.path.parent)
    return run


def names(run: Any) -> list[str]:
    """All files of a run, samples without the time in their names."""
    return sorted(name.rpartition("__")[2] for name in run.files())


@pytest.fixture
def as_in_peace(whole: Any, identical: Any) -> Callable[[Any], bool]:
    """Whether a run has ended as the one that nothing happened to."""

    def compare(run: Any) -> bool:
        pictures = [
            [Image.open(picture.path).tobytes() for picture in list_pictures(one.path / "samples")]
            for one in (run, whole)
        ]
        return (
            identical(run.state(), whole.state())
            and identical(run.weights(), whole.weights())
            and pictures[0] == pictures[1]
            and names(run) == names(whole)
        )

    return compare


def cache_of(run: Any) -> Path:
    return run.path.with_name(".aitk_cache")


# -- between two starts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["truncated", "deleted"])
def test_weights_of_the_newest_save_are_written_again_from_the_state(
    parts: Any, loss: str, as_in_peace: Any, identical: Any, whole: Any, capsys: Any
) -> None:
    file = parts.step_file(2)
    content = {name: tensor.clone() for name, tensor in parts.weights(2).items()}  # not in the file
    file.write_bytes(file.read_bytes()[:-10]) if loss == "truncated" else file.unlink()
    # so that the save stays to be looked at
    parts = parts.but(save={"max_step_saves_to_keep": 4})
    parts.run()
    assert "run_000000002.safetensors of step 2 is damaged or missing; it is written again" in capsys.readouterr().out
    assert identical(parts.weights(2), content) and identical(parts.weights(), whole.weights())


def test_a_damaged_state_and_truncated_weights_fall_back_to_the_save_before(parts: Any, capsys: Any) -> None:
    for file in (parts.path / "optimizer.pt", parts.step_file(2)):
        file.write_bytes(file.read_bytes()[:-100])
    parts.run()
    printed = capsys.readouterr().out
    assert "optimizer.pt is not used: it is damaged" in printed
    assert "run_000000002.safetensors is incomplete" in printed and "resumed weights of step 1 from" in printed
    assert parts.state()["step"] == 4


@pytest.mark.parametrize("loss", ["truncated", "deleted"])
def test_a_lost_shard_of_a_cache_is_made_again(parts: Any, loss: str, as_in_peace: Any, capsys: Any) -> None:
    shards = sorted(cache_of(parts).glob("*/*.safetensors"))
    assert {shard.parent.name for shard in shards} == {"latents", "text"}
    for shard in shards:
        os.truncate(shard, 1000) if loss == "truncated" else shard.unlink()
    parts.run()
    assert ("skipped, what it held is made again" in capsys.readouterr().out) == (loss == "truncated")
    assert as_in_peace(parts)


def test_a_changed_picture_is_told_and_encoded_again(parts: Any, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "changing"
    shutil.copytree(parts.process["datasets"][0]["folder_path"], folder)
    parts = parts.but(datasets=[{"folder_path": str(folder), "resolution": 32, "cache_latents_to_disk": True}])
    parts.but(train={"steps": 3}).run()
    known = set((cache_of(parts) / "latents").iterdir())
    time_ns = (folder / "3.png").stat().st_mtime_ns
    Image.new("RGB", (48, 32), "#123456").save(folder / "3.png")
    # an older time than before, as a copy from elsewhere has, is another time as well
    os.utime(folder / "3.png", ns=(time_ns - 10**12, time_ns - 10**12))
    capsys.readouterr()
    parts.run()
    printed = capsys.readouterr().out
    assert f"{folder}: 1 file was changed since the last start (first: 3.png)" in printed
    assert "encoding images: 1/1" in printed
    assert len(set((cache_of(parts) / "latents").iterdir()) - known) == 1
    assert parts.state()["step"] == 4


def test_samples_that_a_kill_left_out_are_made(parts: Any, as_in_peace: Any) -> None:
    """A kill can come between the save of a step and its pictures."""
    of_step_2 = [picture.path for picture in list_pictures(parts.path / "samples") if picture.step == 2]
    assert len(of_step_2) == 1
    of_step_2[0].unlink()
    parts.run()
    assert as_in_peace(parts)


def test_a_run_folder_that_was_moved_goes_on(parts: Any, tmp_path: Path, as_in_peace: Any, whole: Any) -> None:
    there = tmp_path / "elsewhere" / "models"
    there.mkdir(parents=True)
    shutil.move(parts.path, there / "run")
    shutil.rmtree(parts.path.parent)
    moved = parts.but(training_folder=str(there))
    moved.run()
    assert as_in_peace(moved)


def test_edited_steps_and_rate_take_effect(parts: Any) -> None:
    parts.but(train={"lr": 1e-3, "steps": 5}).run()
    assert [row["learning_rate"] for row in parts.metrics()] == [1e-2, 1e-2, 1e-3, 1e-3, 1e-3]


# -- the clock --------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_changes_nothing(
    training: Any, signal_at: Any, as_in_peace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, real_ns, rng = time.time, time.time_ns, random.Random(0)

    def jumping() -> None:
        monkeypatch.setattr(time, "time", lambda: real() + rng.choice([-1, 1]) * 4e7)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + rng.choice([-1, 1]) * 4 * 10**16)

    run = training(**OPTIONS)
    jumping()
    with signal_at("step 3/4"), pytest.raises(Stopped):
        run.run()
    # the oldest is the newest by its time, and the other way round
    for age, file in enumerate(sorted(path for path in run.path.rglob("*") if path.is_file())):
        os.utime(file, (4e9 - age * 1e8, 4e9 - age * 1e8))
    for shard in cache_of(run).rglob("*.*"):
        os.utime(shard, (0, 0))
    run.run()
    assert as_in_peace(run)


# -- the disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 8 MB."""
    folder = mount_small(tmp_path / "disk", megabytes=8)
    yield folder
    _watchers.clear()
    # what was read from it may still be mapped
    subprocess.run(["umount", "-l", str(folder)], check=True)


def counting(folder: Path, act: Callable[[int], None]) -> Callable[[str, tuple[Any, ...]], None]:
    """Calls `act` with 0, 1, ... whenever a file in the folder is about to be opened for writing."""
    count = iter(range(10**6))

    def watch(event: str, args: tuple[Any, ...]) -> None:
        is_write = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        name = str(args[0]) if is_write and isinstance(args[0], str | Path) else ""
        # nothing is written to the file that only holds a lock
        if name.startswith(str(folder)) and ".aitk-lock" not in name:
            act(next(count))

    return watch


def fill(folder: Path) -> None:
    """Leave no room."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096) == 4096:
                pass
        except OSError:
            return


def test_a_disk_that_fills_up_at_any_write_loses_nothing(
    training: Any, disk: Path, as_in_peace: Any, capsys: Any
) -> None:
    places: list[int] = []
    run = training(training_folder=str(disk), **OPTIONS)
    _watchers.append(counting(disk, places.append))
    run.run()
    _watchers.clear()
    assert as_in_peace(run)
    rng = random.Random(1)
    # one of each fifth of the run
    for place in [rng.randrange(len(places) * fifth // 5, len(places) * (fifth + 1) // 5) for fifth in range(5)]:
        for left in disk.iterdir():
            shutil.rmtree(left)

        def act(number: int, place: int = place) -> None:
            if number == place:
                _watchers.clear()
                fill(disk)

        _watchers.append(counting(disk, act))
        capsys.readouterr()
        code = run_jobs([get_job(run.config)], recover=False, log_file=None)
        _watchers.clear()
        printed = capsys.readouterr().err
        assert code == 1 and "disk is full" in printed, (place, printed)
        assert all(is_complete(path) for path in run.path.glob("*.safetensors"))
        (disk / "filler").unlink()
        run.run()
        assert as_in_peace(run), place


def test_a_folder_that_cannot_be_written_to_is_named(parts: Any, disk: Path, as_in_peace: Any, capsys: Any) -> None:
    shutil.copytree(parts.path.parent, disk / "output")
    there = parts.but(training_folder=str(disk / "output"))
    written = there.written()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    capsys.readouterr()
    assert run_command_line(["run", written]) == 2
    assert "training_folder" in (printed := capsys.readouterr().err) and "cannot be written to" in printed
    # it became so after the look at the config
    assert run_jobs([get_job(there.config)], recover=False, log_file=None) == 1
    assert f"{disk / 'output' / 'run'} cannot be written to (Read-only file system)" in capsys.readouterr().err
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    there.run()
    assert as_in_peace(there)
