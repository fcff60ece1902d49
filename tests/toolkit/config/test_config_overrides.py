"""`--set KEY=VALUE`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit.config import get_config, load, to_yaml, validate

Problems = Callable[..., list[str]]


def test_paths_from_the_top_from_config_and_from_the_process(folder: Path, minimal: str) -> None:
    Path("job.yaml").write_text(minimal, encoding="utf-8")
    overrides = [
        "train.steps=50",
        "datasets.0.folder_path=other",
        "training_folder=elsewhere",
        "name=renamed",
        "meta.note='[name]'",
        "config.process.0.train.lr=1e-4",
        "train.optimizer_params.weight_decay=0.1",
        "sample.prompts=[a cat, 'a dog, black']",
        "process.0.save.save_every=7",
        "datasets.0.repeats=3",
    ]
    config = validate(load("job.yaml", None, overrides))
    process: Any = config.processes[0]
    assert (process.train.steps, process.train.lr, process.train.optimizer_params) == (50, 1e-4, {"weight_decay": 0.1})
    assert (process.datasets[0].folder_path, process.datasets[0].num_repeats) == ("other", 3)
    assert (process.training_folder, config.name, process.name) == ("elsewhere", "renamed", "renamed")
    assert process.sample.prompts == ["a cat", "a dog, black"]
    assert process.save.save_every == 7
    assert config.meta == {"note": "renamed"}


def test_null_takes_a_value_away(folder: Path, minimal: str) -> None:
    Path("job.yaml").write_text(minimal, encoding="utf-8")
    process: Any = validate(load("job.yaml", None, ["network=null"])).processes[0]
    assert process.network is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stps=5", "there is no key 'stps' in train; did you mean 'steps'?"),
        ("train.max_train_steps=5", "there is no key 'max_train_steps' in train; did you mean 'steps'?"),
        ("trian.steps=5", "there is no key 'trian' in the config, its processes or at the top; did you mean 'train'?"),
        ("datasets.3.folder_path=x", "there is no entry 3 in datasets (it has 1)"),
        ("datasets.folder_path=x", "there is no entry folder_path in datasets (it has 1)"),
        ("train.steps.x=5", "there is no key 'x' in train.steps"),
        ("config.process.0.trian=5", "there is no key 'trian' in the config, its processes or at the top"),
        ("config.process.4.train.steps=5", "there is no process to change"),
        ("train.steps", "must have the form KEY=VALUE, such as train.steps=50"),
        ("=5", "must have the form KEY=VALUE"),
    ],
)
def test_unknown_paths_are_errors(minimal: str, problems: Problems, override: str, message: str) -> None:
    (line,) = problems(minimal, override)
    assert line.startswith(f"--set {override}: {message}")


def test_a_bad_value_is_blamed_on_the_override(minimal: str, problems: Problems) -> None:
    expected = "--set train.steps=-5: train.steps: must be at least 1, not -5"
    assert problems(minimal, "train.steps=-5") == [expected]
    expected = "--set train={steps: 0}: train.steps: must be at least 1, not 0"
    assert problems(minimal, "train={steps: 0}") == [expected]


def test_all_bad_overrides_are_told_with_the_other_errors(minimal: str, problems: Problems) -> None:
    found = problems(minimal.replace("steps: 100", "stepps: 100"), "a.b=1", "c.d=2")
    assert [line.partition(":")[0] for line in found] == ["--set a.b=1", "--set c.d=2", "job.yaml"]


def test_with_several_processes_it_goes_to_all_that_know_it(folder: Path, minimal: str) -> None:
    data = yaml.safe_load(minimal)
    data["config"]["process"].append({"type": "count_images", "folder": "x", "report": "y"})
    data["config"]["process"].append({**data["config"]["process"][0], "name": "second"})
    Path("job.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    first, count, last = load("job.yaml", None, ["train.steps=5"]).data["config"]["process"]
    assert (first["train"]["steps"], last["train"]["steps"]) == (5, 5)
    assert "train" not in count


def test_an_override_replaces_a_secret(folder: Path, minimal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL", "a/b")
    Path("job.yaml").write_text(minimal.replace("owner/model", "${MODEL}"), encoding="utf-8")
    path = ("config", "process", 0, "model", "name_or_path")
    assert load("job.yaml").secrets == {path: "${MODEL}"}
    document = load("job.yaml", None, ["model.name_or_path=c/d"])
    assert document.secrets == {}
    assert document.get(path) == "c/d"


def test_get_config_needs_no_valid_config(folder: Path) -> None:
    Path("job.yaml").write_text("job: whatever\nconfig: {name: x, process: [{type: their_own, 1: 2}]}\n")
    assert get_config("job.yaml")["job"] == "whatever"


def test_an_override_may_name_the_environment(
    folder: Path, minimal: str, monkeypatch: pytest.MonkeyPatch, problems: Problems
) -> None:
    monkeypatch.setenv("RESULTS", "my_results")
    Path("job.yaml").write_text(minimal, encoding="utf-8")
    overrides = ["training_folder=${RESULTS}", "train.steps=${STEPS_OF_NOBODY:-7}"]
    config = validate(load("job.yaml", None, overrides))
    process: Any = config.processes[0]
    assert (process.training_folder, process.train.steps) == ("my_results", 7)
    # like a value of the file, it stays a reference in what is saved
    assert "training_folder: ${RESULTS}" in to_yaml(config)
    found = problems(minimal, "training_folder=${NOBODY_SET_THIS}")
    assert any("--set training_folder=${NOBODY_SET_THIS}" in line and "is not set" in line for line in found)
