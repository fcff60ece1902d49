"""Config files for the tests of toolkit/config."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.config import ConfigError, JobConfig, load, validate

MINIMAL = """\
job: extension
config:
  name: test_lora
  process:
    - type: sd_trainer
      training_folder: output
      network: {type: lora, linear: 16, linear_alpha: 16}
      datasets:
        - folder_path: pictures
      train:
        steps: 100
      model:
        name_or_path: owner/model
        arch: flux
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def minimal() -> str:
    """The text of the smallest config that trains a LoRA."""
    return MINIMAL


@pytest.fixture
def problems(folder: Path) -> Callable[..., list[str]]:
    """Everything that is wrong with a config of this text, one line each."""

    def find(text: str, *overrides: str, name: str | None = None) -> list[str]:
        Path("job.yaml").write_text(text, encoding="utf-8")
        try:
            validate(load("job.yaml", name, overrides))
        except ConfigError as error:
            return str(error).splitlines()
        return []

    return find


@pytest.fixture
def changed() -> Callable[..., dict[str, Any]]:
    """The smallest config as a dict, with sections of its process replaced or extended."""

    def change(**sections: Any) -> dict[str, Any]:
        process: dict[str, Any] = {
            "type": "sd_trainer",
            "training_folder": "output",
            "network": {"type": "lora", "linear": 16, "linear_alpha": 16},
            "datasets": [{"folder_path": "pictures"}],
            "train": {"steps": 1000},
            "model": {"name_or_path": "owner/model", "arch": "flux"},
        }
        for key, value in sections.items():
            if isinstance(value, dict) and isinstance(process.get(key), dict):
                process[key] = {**process[key], **value}
            elif key == "datasets":
                process[key] = [{**process[key][0], **value[0]}, *value[1:]]
            else:
                process[key] = value
        return {"job": "extension", "config": {"name": "test_lora", "process": [process]}}

    return change


@pytest.fixture
def read(changed: Callable[..., dict[str, Any]]) -> Callable[..., JobConfig]:
    """The config with changed sections, validated."""
    return lambda **sections: validate(load(changed(**sections)))
