"""Stopping and going on: the same weights, to the last bit, as in one go."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from jobs import Stopped

CASES: dict[str, dict[str, Any]] = {
    "cached": {},
    "cached in memory": {"datasets": {"cache_latents_to_disk": False, "cache_latents": True}},
    "uncached": {"datasets": {"cache_latents_to_disk": False, "num_workers": 0}},
    "crops": {"datasets": {"cache_latents_to_disk": False, "random_crop": True}},
    "crops despite a cache": {"datasets": {"random_crop": True}},
    "captions": {"datasets": {"caption_dropout_rate": 0.4, "shuffle_tokens": True, "keep_tokens": 1}},
    "cached captions": {
        "train": {"cache_text_embeddings": True},
        "datasets": {"caption_dropout_rate": 0.4, "shuffle_tokens": True, "keep_tokens": 1},
    },
    "accumulation": {"train": {"gradient_accumulation": 2}},
    "average": {"train": {"ema_config": {"use_ema": True, "ema_decay": 0.9}}},
    "dropout in the network": {"network": {"dropout": 0.5}},
    "prodigy": {"train": {"optimizer": "prodigy", "lr": 1.0}},
    "fp16": {"train": {"dtype": "fp16"}},
}


def of_case(training: Any, case: str, name: str) -> Any:
    changes = dict(CASES[case])
    base = training(name)
    dataset = {**base.process["datasets"][0], **changes.pop("datasets", {})}
    return base.but(datasets=[dataset], **changes)


def without_times(training: Any) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "time"} for row in training.metrics()]


@pytest.mark.parametrize("case", CASES)
def test_a_stopped_run_ends_like_one_in_one_go(case: str, training: Any, signal_at: Any, identical: Any) -> None:
    whole = of_case(training, case, "whole").run()
    parts = of_case(training, case, "parts")
    with signal_at("step 2/4"), pytest.raises(Stopped, match="saved at step 2"):
        parts.run()
    assert parts.state()["step"] == 2 and parts.step_file(2).exists() and not parts.final.exists()
    parts.run()
    assert identical(parts.state(), whole.state())
    assert identical(parts.weights(), whole.weights())
    assert identical(without_times(parts), without_times(whole)) and len(parts.metrics()) == 4


def test_the_cases_above_differ(training: Any) -> None:
    """Else one of them would test nothing: each must change the result, but for where pixels come from."""
    sums = {}
    for case in CASES:
        run = of_case(training, case, case.replace(" ", "_")).but(train={"steps": 2}).run()
        sums[case] = sum(tensor.double().sum().item() for tensor in run.weights().values())
    assert sums.pop("cached in memory") == sums["cached"]
    assert sums.pop("uncached") == pytest.approx(sums["cached"], rel=1e-5)
    assert sums.pop("crops despite a cache") == pytest.approx(sums["crops"], rel=1e-5)
    assert sums.pop("cached captions") == pytest.approx(sums["captions"], rel=1e-5)
    assert len({round(value, 6) for value in sums.values()}) == len(sums), sums


@pytest.fixture
def stopped(training: Any, signal_at: Any) -> Any:
    """A run that was stopped at step 3 of 4, with a save at every step."""
    run = training(save={"save_every": 1, "max_step_saves_to_keep": 5})
    with signal_at("step 3/4"), pytest.raises(Stopped):
        run.run()
    return run


def test_without_state_the_highest_step_counts_and_not_the_newest_file(stopped: Any, capsys: Any) -> None:
    (stopped.path / "optimizer.pt").write_bytes(b"PK\x03\x04 cut off")
    os.utime(stopped.step_file(1), (4e9, 4e9))
    stopped.run()
    printed = capsys.readouterr().out
    assert "optimizer.pt is not used: it is damaged" in printed
    assert "resumed weights of step 3 from run_000000003.safetensors; optimizer and data order start anew" in printed
    assert stopped.state()["step"] == 4 and "step 4/4" in printed and "step 3/4" not in printed


@pytest.mark.parametrize("damage", ["cut in half", "one byte changed", "empty"])
def test_a_damaged_state_is_noticed(stopped: Any, damage: str, capsys: Any) -> None:
    state = stopped.path / "optimizer.pt"
    content = bytearray(state.read_bytes())
    middle = len(content) // 2
    if damage == "one byte changed":
        with ZipFile(state) as archive:
            largest = max((archive.read(entry) for entry in archive.infolist()), key=len)
        # not in what only fills up between two tensors
        content[content.index(largest) + len(largest) // 2] ^= 255
    state.write_bytes(content[: {"cut in half": middle, "empty": 0}.get(damage, len(content))])
    stopped.run()
    assert "resumed weights of step 3" in capsys.readouterr().out


def test_truncated_weights_are_left_aside(stopped: Any, capsys: Any) -> None:
    (stopped.path / "optimizer.pt").unlink()
    weights = stopped.step_file(3)
    weights.write_bytes(weights.read_bytes()[:-10])
    stopped.run()
    printed = capsys.readouterr().out
    assert "run_000000003.safetensors is incomplete" in printed and "resumed weights of step 2" in printed


def test_an_average_begins_with_the_weights_it_continues(training: Any, signal_at: Any) -> None:
    run = training(save={"save_every": 1}, train={"ema_config": {"use_ema": True, "ema_decay": 0.999}})
    with signal_at("step 3/4"), pytest.raises(Stopped):
        run.run()
    (run.path / "optimizer.pt").unlink()
    saved = run.weights(3)
    run.but(train={"lr": 1e-12}).run()
    for name, tensor in run.weights().items():
        assert (tensor - saved[name]).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"network": {"linear": 4}}, "another network (other layers or another rank)"),
        ({"train": {"optimizer": "lion"}}, "another optimizer, AdamW"),
    ],
)
def test_what_cannot_be_continued_is_an_error_and_nothing_changes(
    stopped: Any, change: dict[str, Any], reason: str, capsys: Any
) -> None:
    before = {**stopped.files(), "status.json": b"says that it failed"}
    assert stopped.but(**change).from_command_line() == 1
    message = capsys.readouterr().err
    assert f"optimizer.pt cannot be continued: it was saved with {reason}; give the run another name" in message
    assert {**stopped.files(), "status.json": b"says that it failed"} == before


def test_a_finished_run_started_again_changes_nothing(training: Any, capsys: Any, identical: Any) -> None:
    sample = {"prompts": ["a cat"], "width": 64, "height": 64, "sample_steps": 1, "sample_every": 0}
    run = training(save={"save_every": 2}, sample=sample).run()
    before = run.state(), run.weights(), run.weights(2), run.header(), run.files()["checkpoints.json"]
    pictures = {path: path.stat().st_mtime_ns for path in (run.path / "samples").glob("*__*")}
    capsys.readouterr()
    for lost in (None, run.final):
        if lost:
            lost.unlink()
        run.run()
        # all is there, or a file that has to be written again
        assert ("resumed exactly at step 4" in capsys.readouterr().out) == bool(lost)
        after = run.state(), run.weights(), run.weights(2), run.header(), run.files()["checkpoints.json"]
        assert identical(before, after)
        assert {path: path.stat().st_mtime_ns for path in (run.path / "samples").glob("*__*")} == pictures
        assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4]
        assert json.loads(run.files()["status.json"])["state"] == "done"


def test_a_finished_run_makes_the_pictures_that_it_lacks(training: Any) -> None:
    sample = {"prompts": ["a cat"], "width": 64, "height": 64, "sample_steps": 1, "sample_every": 0}
    run = training(sample=sample, train={"steps": 1, "skip_first_sample": True}).run()
    (picture,) = (run.path / "samples").glob("*__*")
    picture.unlink()
    run.run()
    assert len([*(run.path / "samples").glob("*__*")]) == 1
    run.but(sample={**sample, "prompts": ["a dog"]}).run()
    assert len([*(run.path / "samples").glob("*__*")]) == 2


def test_a_finished_run_goes_on_with_more_steps(training: Any, identical: Any) -> None:
    whole = training("whole", train={"steps": 6}).run()
    longer = training("longer").run().but(train={"steps": 6}).run()
    assert identical(longer.state(), whole.state())


def test_an_edited_learning_rate_takes_effect(stopped: Any) -> None:
    stopped.but(train={"lr": 3e-5}).run()
    assert [row["learning_rate"] for row in stopped.metrics()] == [1e-2, 1e-2, 1e-2, 3e-5]


def test_a_run_killed_while_saving_leaves_no_temporary_file(stopped: Any) -> None:
    leftover = Path(stopped.path, ".aitk-tmp-0123456789ab-run.safetensors")
    leftover.write_bytes(b"half")
    stopped.run()
    assert not leftover.exists()
