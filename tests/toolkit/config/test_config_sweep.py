"""`config.sweep`: which runs there are, what each is given, and that every mistake of every run is told once."""

from pathlib import Path
from typing import Any

import pytest

from toolkit.config import ConfigError, load, to_yaml, validate
from toolkit.config.sweep import SweepConfig, validate_sweep

ROOT = Path(__file__).resolve().parents[3]
TEXT = """
job: extension
config:
  name: small
  sweep:
    {sweep}
  process:
    - type: sd_trainer
      training_folder: {folder}
      model: {{arch: flux, name_or_path: "builtin:tiny-flux"}}
      network: {{type: lora, linear: 4}}
      datasets: [{{folder_path: "pictures"}}]
      train: {{steps: 3, lr: 1e-4}}
      sample: {{prompts: ["[name]{mark}"]}}
"""


def write(folder: Path, sweep: str, out: str = "out", mark: str = "") -> Path:
    path = folder / "job.yaml"
    path.write_text(TEXT.format(sweep=sweep, folder=out, mark=mark).lstrip(), encoding="utf-8")
    return path


def read(folder: Path, sweep: str, out: str = "out", overrides: tuple[str, ...] = ()) -> SweepConfig:
    return validate_sweep(load(write(folder, sweep, out), overrides=overrides))


def rates(sweep: SweepConfig) -> list[tuple[Any, Any]]:
    trainers: list[Any] = [each.processes[0] for each in sweep.configs]
    return [(trainer.train.lr, trainer.network.linear) for trainer in trainers]


def messages(folder: Path, sweep: str, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(folder, sweep, overrides=overrides)
    return [str(problem).removeprefix(f"{folder}/") for problem in caught.value.problems]


def test_a_grid_has_every_combination_the_first_key_slowest(tmp_path: Path) -> None:
    sweep = read(tmp_path, "grid: {train.lr: [1e-4, 3e-4], network.linear: [8, 16]}")
    assert rates(sweep) == [(1e-4, 8), (1e-4, 16), (3e-4, 8), (3e-4, 16)]


def test_zip_takes_the_values_at_one_place(tmp_path: Path) -> None:
    assert rates(read(tmp_path, "zip: {train.lr: [1e-4, 3e-4], network.linear: [8, 16]}")) == [(1e-4, 8), (3e-4, 16)]


def test_the_runs_of_a_list_set_what_they_say_and_keep_the_rest(tmp_path: Path) -> None:
    assert rates(read(tmp_path, "list: [{train.lr: 2e-4}, {config.process.0.network.linear: 9}]")) == [
        (2e-4, 4),
        (1e-4, 9),
    ]


def test_each_run_has_its_folder_and_files_of_a_readable_name(tmp_path: Path) -> None:
    sweep = validate_sweep(load(write(tmp_path, "list: [{train.lr: 2e-4}, {train.lr: 3e-4}]", mark=" [index]")))
    second = sweep.configs[1]
    trainer: Any = second.processes[0]
    assert (second.name, trainer.folder(second.name), sweep.folder) == (
        "small_1",
        Path("out/small/1"),
        Path("out/small"),
    )
    assert trainer.sample.prompts == ["small 1"]


def test_the_config_of_a_run_is_a_config_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESULTS", str(tmp_path / "results"))
    sweep = read(tmp_path, "grid: {train.lr: [1e-4, 3e-4]}", "${RESULTS}")
    (tmp_path / "point.yaml").write_text(to_yaml(sweep.configs[1]), encoding="utf-8")
    assert "training_folder: ${RESULTS}/small" in (tmp_path / "point.yaml").read_text(encoding="utf-8")
    again: Any = validate(load(tmp_path / "point.yaml"))
    assert again.processes[0].folder(again.name) == tmp_path / "results/small/1"
    assert again.processes[0].train.lr == 3e-4


def test_mistakes_of_all_runs_are_told_once_each_with_the_line_of_the_sweep(tmp_path: Path) -> None:
    sweep = "\n      ".join(["grid:", "train.lr: [1e-4, 2e-4]", "train.steps: [0, ten]", "network.linaer: [1, 2]"])
    assert messages(tmp_path, sweep) == [
        "job.yaml:7: train.steps: must be at least 1, not 0",
        "job.yaml:7: train.steps: must be a whole number, not 'ten'",
        "job.yaml:8: config.sweep.grid.network.linaer: there is no key 'linaer' in network; did you mean 'linear'?",
    ]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("grd: {train.lr: [1e-4]}", "config.sweep.grd: unknown key; did you mean 'grid'?"),
        ("grid: {train.lr: 1e-4}", "must be a list of values, not 0.0001"),
        ("grid: {train: {lr: [1e-4]}}", "a key inside is written train.lr"),
        ("zip: {train.lr: [1e-4, 2e-4], train.steps: [3]}", "has 1 values where another key has 2"),
        ("list: [1e-4]", "must be a group of keys, not 0.0001"),
        ("list: []", "must be a list with a group of keys per run"),
        ("grid: {name: [a, b]}", "a sweep names the folders of its runs by itself"),
        ("grid: {launch.time: [1, 2]}", "cannot differ between the runs of a sweep"),
        ("grid: {train.lr: [1e-4, 1e-4]}", "runs 0 and 1 come to the same"),
        ("{grid: {train.lr: [1e-4]}, list: [{train.lr: 1e-4}]}", "must have one of grid, zip, list, not several"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(tmp_path: Path, sweep: str, message: str) -> None:
    assert message in "\n".join(messages(tmp_path, sweep))


def test_a_value_on_the_command_line_cannot_hide_behind_the_sweep(tmp_path: Path) -> None:
    found = messages(tmp_path, "grid: {train.lr: [1e-4, 2e-4]}", ("train.lr=5",))
    assert found == ["--set train.lr=5: has no effect, because the sweep sets this key"]


def test_what_reads_one_job_says_that_these_are_several(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.sweep: stands for several runs"):
        validate(load(write(tmp_path, "grid: {train.lr: [1e-4]}")))


@pytest.mark.parametrize("name", ["sweep_tiny", "sweep_list"])
def test_examples_are_sweeps_of_four_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert len(validate_sweep(load(f"config/examples/{name}.yaml")).points) == 4
