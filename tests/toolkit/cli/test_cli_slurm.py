"""`aitk slurm profile` where something is wrong: each time one sentence, and no file is changed."""

from pathlib import Path

import pytest

from toolkit.cli.app import run_command_line


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
