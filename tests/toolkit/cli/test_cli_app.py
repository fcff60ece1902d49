"""The command line as a whole, `aitk ls` and `aitk doctor`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def aitk(here: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/aitk.py"), *arguments]
    environment = {**os.environ, **env}
    return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)


def loaded_by(here: Path, *arguments: str) -> tuple[str, set[str]]:
    """What a command prints, and the modules that it imports."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import run; assert run.start({list(arguments)!r}) == 0"
    code += "; print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout, set(result.stderr.split())


def test_help_names_every_command_and_imports_none(tmp_path: Path) -> None:
    text, loaded = loaded_by(tmp_path, "--help")
    for name in ("run", "check", "init", "schema", "ls", "doctor"):
        assert f"\n  {name} " in text
    assert "toolkit.cli.app" in loaded
    assert not loaded & {"torch", "yaml", "toolkit.config", "jobs", "toolkit.cli.run", "toolkit.cli.check"}


def test_listing_imports_no_plugin_and_no_other_command(tmp_path: Path) -> None:
    _, loaded = loaded_by(tmp_path, "ls")
    assert "toolkit.cli.ls" in loaded
    assert not [name for name in loaded if name.startswith(("extensions_built_in", "aitk_example", "torch", "yaml"))]
    assert not loaded & {"toolkit.cli.run", "toolkit.config.document", "toolkit.config.plugins"}


@pytest.mark.parametrize("name", ["run", "check", "init", "schema", "ls", "doctor"])
def test_every_command_explains_itself(tmp_path: Path, name: str) -> None:
    result = aitk(tmp_path, name, "--help")
    assert result.returncode == 0
    assert f"aitk {name}" in result.stdout


def test_misspelled_command_ends_with_2(tmp_path: Path) -> None:
    result = aitk(tmp_path, "rnu")
    assert result.returncode == 2
    assert "rnu" in result.stderr


def test_completion_script_is_printed(tmp_path: Path) -> None:
    result = aitk(tmp_path, "--show-completion", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1", SHELL="bash")
    assert "aitk" in aitk(tmp_path, _AITK_COMPLETE="source_bash").stdout + result.stdout


def test_commands_and_options_are_completed(tmp_path: Path) -> None:
    words = {"_AITK_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert "doctor" in aitk(tmp_path, COMP_WORDS="aitk ", **words).stdout
    assert "--dry-run" in aitk(tmp_path, COMP_WORDS="aitk run --", **{**words, "COMP_CWORD": "2"}).stdout


def test_ls_shows_broken_and_doubled_ones_and_still_ends_with_0(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / "extensions" / folder).mkdir(parents=True)
        (tmp_path / "extensions" / folder / "__init__.py").write_text(
            "class A:\n    uid = 'same'\nAI_TOOLKIT_EXTENSIONS = [A]\n", encoding="utf-8"
        )
    (tmp_path / "extensions/bad").mkdir()
    (tmp_path / "extensions/bad/__init__.py").write_text("class :", encoding="utf-8")
    result = aitk(tmp_path, "ls")
    assert result.returncode == 0
    assert "declared twice, not usable" in result.stdout
    assert "SyntaxError" in result.stdout
    listing = json.loads(aitk(tmp_path, "ls", "processes", "--json").stdout)
    assert set(listing) == {"processes", "broken"}
    rows = {row["name"]: row for row in listing["processes"]}
    assert len(rows["same"]["declared_by"]) == 2
    assert rows["sd_trainer"]["extension"] == "extensions_built_in.sd_trainer"


def test_ls_of_an_unknown_kind_names_the_nearest(tmp_path: Path) -> None:
    result = aitk(tmp_path, "ls", "modles")
    assert result.returncode == 2
    assert "did you mean 'models'?" in result.stderr


def test_doctor_tells_what_there_is_and_never_the_token(tmp_path: Path) -> None:
    (tmp_path / "extensions/bad").mkdir(parents=True)
    (tmp_path / "extensions/bad/__init__.py").write_text(
        "class A:\n    uid = 'bad'\nraise OSError('no disk')\nAI_TOOLKIT_EXTENSIONS = [A]\n", encoding="utf-8"
    )
    result = aitk(tmp_path, "doctor", "--json", HF_TOKEN="hf_secret_value")
    report = json.loads(result.stdout)
    assert "hf_secret_value" not in result.stdout
    assert report["hub"]["token"] == "set"
    assert report["packages"]["torch"]
    assert any(device["name"] == "cpu" for device in report["devices"])
    assert result.returncode == 1
    (problem,) = [text for text in report["problems"] if "no disk" in text]
    assert str(tmp_path / "extensions/bad/__init__.py") in problem
