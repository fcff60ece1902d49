"""`aitk slurm profile` where something is wrong: each time one sentence, and no file is changed."""

from pathlib import Path

import pytest

from toolkit.cli.app import run_command_line


def test_what_is_in_a_profile_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "aitk/slurm/site.yaml"
    file.parent.mkdir(parents=True)
    monkeypatch.setenv("TOKEN", "secret")
    # a time of which YAML 1.1 makes a number
    file.write_text("time: 24:00:00\nenv: {TOKEN: '${TOKEN}'}\n", encoding="utf-8")
    assert run_command_line(["slurm", "profile", "site", "--set", "mem=4G"]) == 0
    assert file.read_text(encoding="utf-8") == "time: '24:00:00'\nenv:\n  TOKEN: ${TOKEN}\nmem: 4G\n"


@pytest.mark.parametrize(
    ("text", "setting", "told"),
    [
        ("mem: 4G\n", "type=local", "--set type=local: 'type' says nothing in a profile"),
        ("mem: [\n", "mem=4G", "site.yaml:2: this is not valid YAML"),
        ("- mem\n", "mem=4G", "site.yaml must be a group of keys"),
        ("memm: 4G\n", "time=60", "site.yaml: memm: unknown key; did you mean 'mem'?"),
        ("mem: 4G\n", "memm=5G", "--set: memm: unknown key; did you mean 'mem'?"),
    ],
)
def test_what_cannot_be_set_is_told_and_not_written(
    text: str,
    setting: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "aitk/slurm/site.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    assert run_command_line(["slurm", "profile", "site", "--set", setting]) == 2
    assert told in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == text
