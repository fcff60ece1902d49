"""Class pictures: the real tiny model makes what a folder lacks, again the same ones, and no more than that."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed_run import killed, kills
from PIL import Image

from jobs import Stopped, get_job, run_job
from toolkit.sampling.picture_files import read_metadata

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def making(tiny_flux: Path, tmp_path: Path, quick_gc: None) -> Make:
    """A job that only makes class pictures."""

    def make(**keys: Any) -> dict[str, Any]:
        process = {
            "type": "class_images",
            "training_folder": str(tmp_path / "output"),
            "device": "cpu",
            "model": {"arch": "flux", "name_or_path": str(tiny_flux)},
            "dtype": "fp32",
            "prompt": "a red circle",
            "folder": str(tmp_path / "class"),
            "num_images": 5,
            "resolution": 64,
            "batch_size": 2,
            "sample_steps": 1,
            "guidance_scale": 1,
            **keys,
        }
        return {"job": "extension", "config": {"name": "class", "process": [process]}}

    return make


def pictures(folder: Path) -> dict[str, bytes]:
    """The finished pictures; one that was being written when a run was killed has a name that starts with a dot."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("class_*.png"))}


def test_pictures_are_made_at_the_size_and_say_what_they_were_made_with(making: Make, tmp_path: Path) -> None:
    run_job(making())
    made = sorted((tmp_path / "class").iterdir())
    assert [path.name[-9:] for path in made] == [f"{number:05d}.png" for number in range(5)]
    with Image.open(made[0]) as image:
        assert (image.size, image.mode) == ((64, 64), "RGB")
    facts = [read_metadata(path) for path in made]
    assert {fact["prompt"] for fact in facts} == {"a red circle"} and len({fact["seed"] for fact in facts}) == 5
    assert len(set(pictures(tmp_path / "class").values())) == 5


def test_only_what_is_missing_is_made_and_it_is_the_same(making: Make, tmp_path: Path) -> None:
    run_job(making())
    whole = pictures(tmp_path / "class")
    names = sorted(whole)
    (tmp_path / "class" / names[1]).unlink()
    (tmp_path / "class" / names[3]).write_bytes(whole[names[3]][:-40])
    kept = (tmp_path / "class" / names[0]).stat().st_mtime_ns
    process = get_job(making()).processes[0].build(None)
    assert process.missing() == [1, 3]
    process.run()
    assert (tmp_path / "class" / names[0]).stat().st_mtime_ns == kept
    again = pictures(tmp_path / "class")
    assert sorted(again) == names
    for name in names:
        old, new = (
            np.asarray(Image.open(_file(tmp_path, name, data)), np.int16) for data in (whole[name], again[name])
        )
        assert np.abs(old - new).max() <= 1


def _file(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}_{name}"
    path.write_bytes(data)
    return path


def test_a_folder_that_is_full_loads_no_model(making: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_job(making())
    before = pictures(tmp_path / "class")
    config = making()
    config["config"]["process"][0]["model"]["te_device"] = "cpu"  # has no effect on pictures
    run_job(config)
    assert pictures(tmp_path / "class") == before
    assert "all 5 are in" in capsys.readouterr().out


def test_pictures_of_the_user_count_and_stay(making: Make, tmp_path: Path, noise_folder: Path) -> None:
    folder = tmp_path / "class"
    (folder / "sub").mkdir(parents=True)
    own = folder / "sub/mine.png"
    own.write_bytes((noise_folder / "0.png").read_bytes())
    (folder / "broken.jpg").write_bytes(b"no picture")
    run_job(making(num_images=3))
    assert own.read_bytes() == (noise_folder / "0.png").read_bytes()
    assert [name[-9:] for name in pictures(folder)] == ["00000.png", "00001.png"]


def test_another_prompt_in_the_same_folder_counts_what_is_there(
    making: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_job(making(num_images=2))
    run_job(making(num_images=3, prompt="a blue square"))
    assert len(pictures(tmp_path / "class")) == 3
    assert "2 in" in capsys.readouterr().out


def test_a_stop_ends_between_batches_and_the_rest_follows(making: Make, tmp_path: Path, monkeypatch: Any) -> None:
    process = get_job(making()).processes[0].build(None)
    write = process._make_batch

    def stop_after(*arguments: Any) -> None:
        write(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    process._make_batch = stop_after
    with pytest.raises(Stopped, match="2 of 5"):
        process.run()
    assert len(pictures(tmp_path / "class")) == 2
    run_job(making())
    assert len(pictures(tmp_path / "class")) == 5


@kills
def test_a_killed_run_leaves_whole_pictures_and_the_next_one_makes_the_rest(making: Make, tmp_path: Path) -> None:
    folder = tmp_path / "class"
    made = len(killed(making(num_images=400, batch_size=1), folder, most=400))
    process = get_job(making(num_images=made + 2, batch_size=1)).processes[0].build(None)
    assert process.missing() == [made, made + 1]
    process.run()
    assert len(pictures(folder)) == made + 2
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_negative_prompt_and_guidance_take_part(making: Make, tmp_path: Path) -> None:
    run_job(making(num_images=1, folder=str(tmp_path / "plain")))
    run_job(making(num_images=1, guidance_scale=9, folder=str(tmp_path / "guided")))
    (plain,), (guided,) = pictures(tmp_path / "plain").values(), pictures(tmp_path / "guided").values()
    assert plain != guided


def test_the_plan_counts_what_is_missing(making: Make, tmp_path: Path, noise_folder: Path) -> None:
    (tmp_path / "class").mkdir()
    (tmp_path / "class/mine.png").write_bytes((noise_folder / "0.png").read_bytes())
    lines = "\n".join(get_job(making()).plan())
    assert "5 wanted, 4 to be made (64x64, 1 steps, guidance 1)" in lines
