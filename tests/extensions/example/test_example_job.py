"""The example job trains: its family says of its parts no more than docs/extending.md asks."""

import json
from pathlib import Path

import pytest

from jobs import run_job

JOB = Path(__file__).resolve().parents[3] / "extensions" / "example" / "train_pixels.yaml"


def test_the_example_job_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(JOB.parents[2])
    changes = ["train.steps=2", "sample=null", "model.width=16", "model.depth=1", f"training_folder={tmp_path}"]
    run_job(JOB, overrides=changes)
    assert (tmp_path / "pixels" / "pixels").is_dir()
    used = json.loads((tmp_path / "pixels" / "versions.json").read_text(encoding="utf-8"))["extensions"]
    assert used["aitk_example"] == str(JOB.parent / "pyproject.toml")
    assert not [name for name in used if name.startswith("extensions_built_in")]
