"""`aitk compare`: what differs between runs and what came of them: a real sweep of two trainings and made folders."""

import csv
import io
import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from toolkit.cli.app import run_command_line
from toolkit.launch.record import Record
from toolkit.launch.sweep import Run, SweepFolder, record
from toolkit.reporting.metrics import MetricsFile

SWEEP = """
job: extension
config:
  name: rates
  sweep: {{zip: {{train.lr: [1e-6, 1e-2]}}}}
  process:
    - type: sd_trainer
      training_folder: {out}
      device: cpu
      model: {{arch: flux, name_or_path: "{model}"}}
      network: {{type: lora, linear: 2}}
      datasets: [{{folder_path: "{pictures}", resolution: 64}}]
      train: {{steps: 2, batch_size: 1, lr: 1e-4, dtype: fp32, gradient_checkpointing: false}}
      sample: {{sample_every: 2, width: 64, height: 64, sample_steps: 1, prompts: [a red circle, a blue square]}}
      logging: {{log_every: 1}}
"""


def make_run(folder: Path, losses: list[float], state: str = "done", **values: object) -> Path:
    """A folder as a run leaves it."""
    process = {"type": "sd_trainer", "name": folder.name, "training_folder": str(folder.parent), **values}
    folder.mkdir(parents=True)
    text = yaml.safe_dump({"job": "extension", "config": {"name": folder.name, "process": [process]}})
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    metrics = MetricsFile(folder / "metrics.jsonl")
    for step, loss in enumerate(losses):
        metrics.log(step + 1, {"loss/loss": loss})
    metrics.close()
    record(folder, state, text)
    return folder


def test_without_metrics_the_steps_are_those_that_were_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / name, []) for name in ("a", "b")]
    Record(runs[1]).note(state="done", step=7, total=7)
    assert [row["steps"] for row in compared(capsys, *map(str, runs))] == [None, 7]


def compared(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert run_command_line(["compare", *arguments, "--json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_a_sweep_of_trainings_is_told_apart_in_table_and_picture(
    tmp_path: Path, tiny_flux: Path, shapes_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, out = tmp_path / "rates.yaml", tmp_path / "out"
    job.write_text(SWEEP.format(out=out, model=tiny_flux, pictures=shapes_folder), encoding="utf-8")
    assert run_command_line(["run", str(job)]) == 0
    assert (out / "rates/1/rates_1.safetensors").is_file()
    rows = compared(capsys, str(out / "rates"))
    assert [(row["run"], row["train.lr"], row["state"], row["steps"]) for row in rows] == [
        ("0", 1e-6, "done", 2),
        ("1", 0.01, "done", 2),
    ]
    # the first step sees the same noise and pictures with the same weights
    firsts = [(out / f"rates/{index}/metrics.jsonl").read_text(encoding="utf-8").splitlines()[0] for index in (0, 1)]
    assert len({json.loads(line)["loss/loss"] for line in firsts}) == 1
    assert rows[0]["loss"] != rows[1]["loss"]

    sheet = tmp_path / "runs.png"
    assert run_command_line(["compare", str(out / "rates"), "--sheet", str(sheet)]) == 0
    with Image.open(sheet) as picture:
        assert picture.width > 2 * 192 and picture.height > 2 * 192

    (out / "rates/0/rates_0.safetensors").unlink()
    assert run_command_line(["run", str(job)]) == 0
    assert not (out / "rates/0/rates_0.safetensors").exists(), "a run that is done is not done again"


def test_only_what_differs_has_a_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = {"steps": 3, "lr": 1e-4}
    make_run(tmp_path / "a", [0.5, 0.3, 0.4], train=train, network={"linear": 8})
    make_run(tmp_path / "b", [0.5, 0.2], "failed", train={**train, "lr": 2e-4}, network={"linear": 8})
    first, second = compared(capsys, str(tmp_path / "a"), str(tmp_path / "b"))
    assert list(first) == [
        "run",
        "train.lr",
        "state",
        "steps",
        "loss",
        "mean",
        "min",
        "validation",
        "seconds",
        "samples",
    ]
    assert (first["run"], first["train.lr"], first["steps"], first["loss"], first["min"]) == ("a", 1e-4, 3, 0.4, 0.3)
    assert first["mean"] == pytest.approx(0.4) and second["state"] == "failed"


def test_rows_are_sorted_by_a_column_the_unknown_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [
        str(make_run(tmp_path / name, losses, train={"lr": rate}))
        for name, losses, rate in (("a", [0.3], 3.0), ("b", [], 2.0), ("c", [0.1], 1.0))
    ]
    assert [row["run"] for row in compared(capsys, *folders, "--sort", "loss")] == ["c", "a", "b"]
    assert [row["run"] for row in compared(capsys, *folders, "--sort", "lr", "--reverse")] == ["a", "b", "c"]
    assert run_command_line(["compare", *folders, "--sort", "los"]) == 2
    assert "did you mean 'loss'?" in capsys.readouterr().err
    assert run_command_line(["compare", *folders, "--csv"]) == 0
    assert [row["train.lr"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == ["3.0", "2.0", "1.0"]


def test_a_folder_of_a_sweep_stands_for_its_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = SweepFolder(tmp_path / "sweep")
    texts = [
        f"job: extension\nconfig: {{name: x, process: [{{type: a, what: {what}}}]}}\n" for what in ("left", "right")
    ]
    runs = [Run(index, {"what": text}, text) for index, text in enumerate(texts)]
    sweep.write("sweep", runs, [0, 1])
    record(sweep.run_folder(0), "done")
    assert run_command_line(["compare", str(sweep.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["run", "what", "state"],
        ["---", "-----", "-----------"],
        ["0", "left", "done"],
        ["1", "right", "not", "started"],
    ]


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["compare", str(tmp_path)]) == 2
    assert "no folder of a run or a sweep" in capsys.readouterr().err


def test_a_run_without_a_config_is_not_what_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "output/good", [1.0])
    (tmp_path / "output/bare").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run_command_line(["compare", "bare"]) == 2
    assert capsys.readouterr().err.endswith("neither here nor below output (known: good)\n")
