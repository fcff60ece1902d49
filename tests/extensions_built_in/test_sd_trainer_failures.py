"""What goes wrong ends in one sentence that says what to change, and earlier saves stay whole."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_disk import mount_small

from jobs import get_job
from toolkit.cli.run import run_jobs
from toolkit.run_folder import RunFolder, is_complete


def one_sentence(printed: str, name: str) -> str:
    """The only line about the failed job."""
    lines = [line for line in printed.splitlines() if line and "AITK_DEBUG" not in line]
    assert len(lines) == 1 and lines[0].startswith(f"job '{name}' failed: "), printed
    return lines[0]


def test_a_nan_loss_names_the_key_and_leaves_the_last_save(
    training: Any, signal_at: Any, identical: Any, capsys: Any
) -> None:
    run = training(save={"save_every": 2}, train={"steps": 6})
    with signal_at("step 2/6"):
        assert run.from_command_line() == 130
    before = run.state()
    capsys.readouterr()
    assert run.but(train={"lr": 1e30}).from_command_line() == 1
    sentence = one_sentence(capsys.readouterr().err, "run")
    assert "the loss became" in sentence and sentence.count("lower train.lr") == 1
    assert identical(run.state(), before)
    assert run.from_command_line() == 0
    assert identical(run.state(), training("whole", train={"steps": 6}).run().state())


def test_weights_that_are_no_numbers_are_not_saved(training: Any, capsys: Any) -> None:
    run = training(train={"lr": 1e39, "steps": 1})
    assert run.from_command_line() == 1
    sentence = one_sentence(capsys.readouterr().err, "run")
    assert "a weight became NaN or infinite at step 1" in sentence and "lower train.lr" in sentence
    assert not run.final.exists() and not (run.path / "optimizer.pt").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = mount_small(tmp_path / "disk", megabytes=2)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_in_a_sentence_and_leaves_whole_saves(
    training: Any, small_disk: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, identical: Any
) -> None:
    monkeypatch.setenv("AITK_CACHE", str(tmp_path / "cache"))
    options = {
        "network": {"linear": 16, "network_kwargs": {}},
        "save": {"save_every": 1, "max_step_saves_to_keep": 50},
        "train": {"steps": 12},
    }
    run = training("run", training_folder=str(small_disk), **options)
    # without the look at the free space that comes first, as if another program filled the disk meanwhile
    assert run_jobs([get_job(run.config)], recover=False, log_file=None) == 1
    assert "the disk is full" in one_sentence(capsys.readouterr().err, "run")
    saved = run.state()["step"]
    kept = [name for save in RunFolder(run.path, "run").checkpoints() for name in save.files]
    assert 1 <= saved < 12 and len(kept) in (saved, saved - 1)
    assert all(is_complete(path) for path in run.path.glob("*.safetensors"))

    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    run.run()
    assert identical(run.state(), training("whole", **options).run().state())


def test_memory_that_runs_out_ends_in_a_sentence(training: Any, capsys: Any) -> None:
    sample = {"prompts": ["a cat"], "width": 60_000, "height": 60_000, "sample_steps": 1, "sample_every": 2}
    run = training(sample=sample, train={"skip_first_sample": True, "steps": 3})
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if not pages:
        pytest.skip("the limit below needs /proc")
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + 2**31, old[1]))
    try:
        assert run.from_command_line() == 1
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)
    sentence = one_sentence(capsys.readouterr().err, "run")
    assert "RAM ran out" in sentence and "train.gradient_checkpointing: true" in sentence
    assert run.state()["step"] == 2  # what was trained until then is saved


@pytest.fixture
def damaged_folder(tmp_path: Path, noise_folder: Path) -> Path:
    """Six pictures, of which 2.png breaks off behind its header and 4.png is no picture at all."""
    folder = tmp_path / "damaged"
    shutil.copytree(noise_folder, folder)
    cut = folder / "2.png"
    cut.write_bytes(cut.read_bytes()[:200])
    (folder / "4.png").write_text("not found")
    return folder


@pytest.mark.parametrize("is_cached", [True, False])
def test_broken_pictures_are_named_and_left_out(
    training: Any, damaged_folder: Path, is_cached: bool, capsys: Any
) -> None:
    dataset = {"folder_path": str(damaged_folder), "resolution": 32, "cache_latents": is_cached}
    run = training(datasets=[dataset], train={"steps": 8})
    assert run.from_command_line() == 0
    printed = capsys.readouterr().out
    assert f"{damaged_folder / '4.png'}: " in printed
    assert printed.count(f"{damaged_folder / '2.png'}: ") == 1
    assert run.state()["step"] == 8


@pytest.mark.parametrize("is_cached", [True, False])
def test_strict_stops_at_a_broken_picture(training: Any, damaged_folder: Path, is_cached: bool, capsys: Any) -> None:
    (damaged_folder / "4.png").unlink()
    dataset = {"folder_path": str(damaged_folder), "resolution": 32, "cache_latents": is_cached, "strict": True}
    run = training(datasets=[dataset], train={"steps": 8})
    assert run.from_command_line() == 1
    assert "2.png: " in one_sentence(capsys.readouterr().err, "run")


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_folder_of_broken_pictures_is_an_error_and_no_endless_search(
    training: Any, damaged_folder: Path, is_cached: bool, capsys: Any
) -> None:
    for path in damaged_folder.glob("*.png"):
        if path.name != "2.png":
            path.unlink()
    dataset = {"folder_path": str(damaged_folder), "resolution": 32, "cache_latents": is_cached}
    assert training(datasets=[dataset]).from_command_line() == 1
    assert "no image is left to train on" in one_sentence(capsys.readouterr().err, "run")


def test_a_missing_folder_is_found_before_anything_is_loaded(training: Any, tmp_path: Path, capsys: Any) -> None:
    run = training(datasets=[{"folder_path": str(tmp_path / "pictrues")}], model={"name_or_path": str(tmp_path / "no")})
    assert run.from_command_line() == 2
    printed = capsys.readouterr().err
    assert "datasets.0.folder_path: there is no folder" in printed
    assert "model.name_or_path: there is no file or folder" in printed
    assert not run.path.exists()


def test_a_file_in_the_place_of_the_results_is_named(training: Any, tmp_path: Path, capsys: Any) -> None:
    run = training()
    run.path.parent.mkdir(exist_ok=True)
    run.path.touch()
    assert run.from_command_line() == 2
    assert "is a file, where the folder of the run should be" in one_sentence(capsys.readouterr().err, "run")
    assert run.from_command_line("--set", "config.process.0.training_folder=/proc/x") == 2
    assert "training_folder: /proc cannot be written to" in capsys.readouterr().err


def test_two_runs_cannot_share_a_folder(training: Any, capsys: Any) -> None:
    run = training()
    with RunFolder(run.path, "run").lock():
        assert run.from_command_line() == 1
        sentence = one_sentence(capsys.readouterr().err, "run")
        assert f"{run.path} is in use by another run (process {os.getpid()} " in sentence and "--set name=" in sentence
    assert run.from_command_line() == 0
