"""Site profiles: below the config's keys, and blamed by file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs import get_job
from toolkit.cli.app import run_command_line
from toolkit.config import ConfigError
from toolkit.launch.profiles import profile_names, read_profile

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    place = tmp_path / "aitk" / "slurm"
    place.mkdir(parents=True)
    return place


def launcher(overrides: tuple[str, ...] = ("launch.type=slurm",), **launch: Any) -> Any:
    process = {
        "type": "sd_trainer",
        "training_folder": "output",
        "model": {"arch": "flux", "name_or_path": "builtin:tiny-flux"},
        "network": {"type": "lora", "linear": 2},
        "datasets": [{"folder_path": str(ROOT / "datasets/mochi")}],
    }
    config: dict[str, Any] = {"name": "run", "process": [process], **({"launch": launch} if launch else {})}
    return get_job({"job": "extension", "config": config}, overrides=overrides).launcher


def test_the_config_wins_and_groups_are_merged(folder: Path) -> None:
    (folder / "default.yaml").write_text("partition: gpu\ntime: 12:00:00\nenv: {A: one, B: two}\nmodules: [cuda]\n")
    found = launcher(type="slurm", partition="fast", env={"B": "three"})
    assert (found.partition, found.time, found.env, found.modules) == (
        "fast",
        "12:00:00",
        {"A": "one", "B": "three"},
        ["cuda"],
    )
    (folder / "other.yaml").write_text("qos: high\n")
    named = launcher(profile="other")
    assert named.qos == "high" and named.partition is None


def test_the_config_asks_for_gpus_by_either_of_two_keys(folder: Path) -> None:
    (folder / "default.yaml").write_text("gres: gpu:1\n")
    assert launcher(type="slurm").gpus == 1
    assert launcher(type="slurm", gpus_per_node=4).gres is None
    (folder / "default.yaml").write_text("gpus_per_node: 4\n")
    assert launcher(type="slurm", gres="gpu:2").gpus == 2
    assert launcher(type="slurm", gres="tmpdisk:10").gpus == 4


def test_the_command_line_chooses_and_drops_what_is_of_another_launcher(folder: Path) -> None:
    (folder / "default.yaml").write_text("partition: gpu\n")
    assert launcher(type="local", gpus=2).partition == "gpu"
    assert launcher(("launch.type=slurm", "launch.nodes=3")).nodes == 3
    assert launcher(("launch.type=local", "launch.gpus=2"), type="slurm", partition="x").gpus == 2


def test_mistakes_in_a_profile_name_its_file_and_line(folder: Path) -> None:
    file = folder / "default.yaml"
    file.write_text("partition: gpu\nnodez: 3\nextra:\n  output: x\n")
    with pytest.raises(ConfigError) as caught:
        launcher(type="slurm", qos="a\nb")
    assert f"{file}:2: config.launch.nodez: unknown key; did you mean 'nodes'?" in str(caught.value)
    file.write_text("extra:\n  output: x\n")
    with pytest.raises(ConfigError, match=r"default\.yaml:2: config\.launch\.extra\.output: --output is set by aitk"):
        launcher()
    file.write_text("profile: other\n")
    with pytest.raises(ConfigError, match=r"default\.yaml:1: profile: says nothing in a profile"):
        launcher()


def test_values_from_the_environment_stay_references(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_KEY", "a-secret-value")
    (folder / "default.yaml").write_text("env: {WANDB_API_KEY: '${SITE_KEY}'}\n")
    process = {"type": "sd_trainer", "training_folder": "output", "model": {"arch": "flux"}}
    process |= {"network": {"type": "lora"}, "datasets": [{"folder_path": str(ROOT / "datasets/mochi")}]}
    process["model"] = {"arch": "flux", "name_or_path": "builtin:tiny-flux"}
    job = get_job({"job": "extension", "config": {"name": "run", "launch": {"type": "slurm"}, "process": [process]}})
    assert job.document.secrets["config", "launch", "env", "WANDB_API_KEY"] == "${SITE_KEY}"


def test_the_command_makes_lists_and_shows_profiles(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["slurm", "profile"]) == 0
    assert "there are no profiles in" in capsys.readouterr().out
    options = ["--set", "time=24:00:00", "--set", "env.NCCL_DEBUG=INFO", "--set", "modules=[cuda/12]"]
    assert run_command_line(["slurm", "profile", "site", *options]) == 0
    assert run_command_line(["slurm", "profile", "site", "--set", "partition=gpu"]) == 0
    found = read_profile("site")
    assert found is not None
    assert found.data == {
        "time": "24:00:00",
        "env": {"NCCL_DEBUG": "INFO"},
        "modules": ["cuda/12"],
        "partition": "gpu",
    }
    assert run_command_line(["slurm", "profile", "site", "--set", "partitoin=x"]) == 2
    assert "--set: partitoin: unknown key; did you mean 'partition'?" in capsys.readouterr().err
    assert found.data == (read_profile("site") or found).data
    assert run_command_line(["slurm", "profile", "sit"]) == 2
    assert "did you mean 'site'?" in capsys.readouterr().err
    assert run_command_line(["slurm", "profile"]) == 0
    assert "  site\n" in capsys.readouterr().out and profile_names() == ["site"]
    (folder / "folder.yaml").mkdir()
    assert run_command_line(["slurm", "profile", "folder"]) == 2
    assert "did you mean" not in capsys.readouterr().err and profile_names() == ["site"]
