"""Two real processes share out pictures that are to be made: they make those of one, also after a stop and a kill."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked_ranks import fork_ranks
from PIL import Image

import run as program
from jobs import run_job
from toolkit.launch import local

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are copied by fork")
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def making(tiny_flux: Path, noise_folder: Path, tmp_path: Path, quick_gc: None) -> Make:
    """A job that makes 7 pictures of prompts, 4 of pictures, and 3 of a class, below a folder of this name."""

    def make(name: str, **generate: Any) -> dict[str, Any]:
        shared = {"device": "cpu", "model": {"arch": "flux", "name_or_path": str(tiny_flux)}}
        usual = {"sample_steps": 1, "guidance_scale": 1, "seed": 5, "batch_size": 1}
        prompts = [f"a cat, {number}" for number in range(7)]
        sized = {"prompts": prompts, "width": 64, "height": 64, **usual, **generate}
        here = tmp_path / name
        processes = [
            {"type": "to_folder", "output_folder": str(here / "prompts"), "generate": sized},
            {
                "type": "batch_img2img",
                "output_folder": str(here / "pictures"),
                "datasets": [{"folder_path": str(noise_folder), "resolution": 64, "num_repeats": 1}],
                "generate": usual,
            },
            {
                "type": "class_images",
                "training_folder": str(here),
                "folder": str(here / "class"),
                "prompt": "a red circle",
                "dtype": "fp32",
                "num_images": 3,
                "resolution": 64,
                "batch_size": 1,
                "sample_steps": 1,
                "guidance_scale": 1,
            },
        ]
        return {"job": "extension", "config": {"name": "made", "process": [{**each, **shared} for each in processes]}}

    return make


@pytest.fixture
def made_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Counter[str]]]:
    """How many pictures each rank has made, by the kind of the process."""
    from extensions_built_in.generators.process import GeneratorProcess
    from extensions_built_in.sd_trainer.class_images import ClassImagesProcess

    log = tmp_path / "made_by"

    def noting(kind: Any) -> Any:
        make_batch = kind._make_batch

        def noted(process: Any, things: Any, *more: Any) -> None:
            make_batch(process, things, *more)
            with log.open("a") as file:
                file.write(f"{process.folder.name} {os.environ.get('RANK')}\n" * len(things))

        return noted

    for kind in (GeneratorProcess, ClassImagesProcess):
        monkeypatch.setattr(kind, "_make_batch", noting(kind))

    def read() -> dict[str, Counter[str]]:
        lines = [line.split() for line in log.read_text().splitlines()]
        log.unlink()
        return {name: Counter(rank for folder, rank in lines if folder == name) for name in {line[0] for line in lines}}

    return read


def launch(config: dict[str, Any], folder: Path, *options: str) -> int:
    """`aitk run` with the config in a file; returns the exit code."""
    file = folder / "job.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    return program.start(["run", str(file), *options])


def pictures(folder: Path) -> dict[str, bytes]:
    """Whatever is there, also what would be left of a picture that was not finished."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and ".aitk_cache" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_two_processes_make_the_pictures_of_one(
    making: Make, made_by: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork_ranks(monkeypatch, lambda command: program.start(["run", *command[2:]]))
    assert launch(making("both"), tmp_path, "--gpus", "2") == 0
    out, errors = capfd.readouterr()
    assert "making pictures: 7/7" in out and "making class pictures: 3/3" in out and not errors
    assert made_by() == {"prompts": {"0": 4, "1": 3}, "pictures": {"0": 3, "1": 3}, "class": {"0": 2, "1": 1}}
    assert launch(making("both"), tmp_path, "--gpus", "2", "--dry-run") == 0
    assert "to_folder: each process does its part of the work" in capfd.readouterr().out
    run_job(making("alone"))
    both, alone = pictures(tmp_path / "both"), pictures(tmp_path / "alone")
    assert len([name for name in alone if name.endswith(".png")]) == 8 + 6 + 3
    assert [name for name in {**both, **alone} if both.get(name) != alone.get(name)] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("rank", [0, 1])
def test_what_a_stop_or_a_killed_process_leaves_is_whole_and_the_rest_is_made(
    number: int, rank: int, making: Make, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from extensions_built_in.generators.process import GeneratorProcess

    config = making("made", prompts=[f"a cat, {place}" for place in range(9)], seed=-1)
    make_batch = GeneratorProcess._make_batch

    def ending(process: Any, things: Any, *more: Any) -> None:
        make_batch(process, things, *more)
        if os.environ["RANK"] == str(rank):
            os.kill(os.getppid() if number == signal.SIGTERM else os.getpid(), number)
            time.sleep(0.5)  # until it comes back

    with monkeypatch.context() as patch:
        fork_ranks(patch, lambda command: program.start(["run", *command[2:]]))
        patch.setattr(GeneratorProcess, "_make_batch", ending)
        patch.setattr(local, "GRACE_S", 0.5)
        assert launch(config, tmp_path, "--gpus", "2") == (130 if number == signal.SIGTERM else 1)
    said = capfd.readouterr().err
    left = {name: data for name, data in pictures(tmp_path / "made").items() if name.endswith(".png")}
    assert 1 <= len(left) < 9
    if number == signal.SIGTERM:
        assert f"{len(left)} of 9 pictures are made" in said and "Traceback" not in said
    else:
        assert said.strip() == f"rank {rank} was killed by signal 9"
    for name in left:
        Image.open(tmp_path / "made" / name).load()
    run_job(config)
    whole = pictures(tmp_path / "made")
    assert f"{len(left)} are there, {9 - len(left)} to be made" in capfd.readouterr().out
    assert all(whole[name] == data for name, data in left.items())
    assert len([name for name in whole if name.startswith("prompts/0")]) == 9
    assert not [name for name in whole if "tmp" in name]
