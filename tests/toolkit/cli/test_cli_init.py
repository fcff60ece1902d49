"""`aitk init` and `aitk schema`."""

import json
from pathlib import Path

import pytest

from toolkit.cli.app import run_command_line


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_init_writes_a_config_that_only_lacks_the_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["init", "jobs/cat"]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {Path('jobs/cat.yaml')};")
    assert run_command_line(["check", "jobs/cat.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "datasets.0.folder_path: there is no folder datasets" in line


def test_init_never_overwrites(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my_first_lora.yaml").write_text("mine", encoding="utf-8")
    assert run_command_line(["init"]) == 2
    assert capsys.readouterr().err == "my_first_lora.yaml exists and was not changed; name another file\n"
    assert Path("my_first_lora.yaml").read_text(encoding="utf-8") == "mine"


def test_init_names_a_misspelled_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["init", "--arch", "fluxx"]) == 2
    assert capsys.readouterr().err.startswith("--arch: no arch is named 'fluxx'; did you mean 'flux'")
    assert not list(Path().iterdir())


def test_schema_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["required"] == ["job", "config"]


@pytest.mark.parametrize(
    ("arch", "key"), [("wan21", "num_frames"), ("flux_kontext", "control_path"), ("sdxl", "linear")]
)
def test_init_writes_what_the_family_needs(arch: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["init", "mine.yaml", "--arch", arch]) == 0
    text = Path("mine.yaml").read_text(encoding="utf-8")
    assert f"{key}:" in text and f"arch: {arch}" in text and "\n  name: mine\n" in text
    assert "config/examples" not in text
    assert run_command_line(["check", "mine.yaml"]) == 2
    # what is wrong are the folders alone
    lines = capsys.readouterr().err.splitlines()
    assert lines and all("there is no folder /path/to/" in line for line in lines)
