"""`aitk dataset inspect`: a folder and a job, text, JSON and a page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from toolkit.cli.app import run_command_line

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one with a caption, and a broken one."""
    made = tmp_path / "pictures"
    made.mkdir()
    Image.radial_gradient("L").resize((64, 64)).save(made / "a.png")
    Image.linear_gradient("L").resize((96, 64)).save(made / "b.png")
    (made / "a.txt").write_text("a cat")
    (made / "broken.png").write_bytes(b"no picture")
    return made


def write_job(path: Path, folder: Path, **dataset: object) -> Path:
    process = {
        "type": "sd_trainer",
        "training_folder": str(path / "output"),
        "trigger_word": "m1k4",
        "network": {"type": "lora", "linear": 4},
        "train": {"steps": 2, "batch_size": 2},
        "model": {"arch": "flux", "name_or_path": "builtin:tiny-flux"},
        "datasets": [{"folder_path": str(folder), "resolution": 64, **dataset}],
    }
    file = path / "job.yaml"
    file.write_text(yaml.safe_dump({"job": "extension", "config": {"name": "x", "process": [process]}}))
    return file


def aitk(*arguments: str | Path) -> int:
    return run_command_line(["dataset", *map(str, arguments)])


def test_a_folder_as_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert aitk("inspect", folder, "-r", "64", "--trigger", "m1k4") == 0
    out = capsys.readouterr().out
    for line in (
        "2 pictures, 1 caption",
        "2 samples in 2 batches per epoch at 64",
        "broken, left out: 1",
        "  broken.png: not an image that can be read",
        "without a caption: 1",
        "trigger 'm1k4': written in 0, put in front of 2",
        "tokens: not counted; --tokenizer FOLDER says what the text encoder sees",
    ):
        assert f"\n{line}\n" in out, line


def test_json_is_all_that_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert aitk("inspect", folder, "-r", "64", "-r", "32", "--json", "--divisor", "32", "--batch-size", "3") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["resolutions"], facts["divisor"], facts["pictures"]) == ([32, 64], 32, 2)
    assert {bucket["batch_size"] for bucket in facts["buckets"]} == {3}
    assert [broken["name"] for broken in facts["broken"]] == ["broken.png"]


def test_a_page_is_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    assert aitk("inspect", folder, "-r", "64", "--html", page) == 0
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert f"wrote {page}" in capsys.readouterr().out
    assert not [file for file in folder.iterdir() if file.name not in {"a.png", "b.png", "a.txt", "broken.png"}]


def test_a_job_brings_its_keys_and_the_tokenizers_of_its_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write_job(tmp_path, folder, num_repeats=2, flip_x=True, strict=True)
    assert aitk("inspect", job, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["samples"] == 8 and facts["resolutions"] == [64]
    assert {bucket["batch_size"] for bucket in facts["buckets"]} == {2}
    assert facts["captions"]["triggers"] == [{"word": "m1k4", "captions_with": 0, "captions_without": 2}]
    assert [found["tokenizer"] for found in facts["captions"]["tokens"]] == ["tokenizer", "tokenizer_2"]
    assert [broken["name"] for broken in facts["broken"]] == ["broken.png"]
    assert not (tmp_path / "output").exists()


def test_options_come_before_the_job(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write_job(tmp_path, folder)
    assert aitk("inspect", job, "--json", "-r", "32", "--trigger", "kit", "--batch-size", "1", "--divisor", "8") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["resolutions"], facts["divisor"]) == ([32], 8)
    assert facts["captions"]["triggers"][0]["word"] == "kit"
    assert {bucket["batch_size"] for bucket in facts["buckets"]} == {1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "nothing"),
        (["empty"], "no image found"),
        (["bad.yaml"], "bad.yaml"),
        (["pictures", "--tokenizer", "empty"], "no tokenizer found"),
        (["pictures", "--html", "gone/page.html"], "gone/page.html"),
    ],
)
def test_what_cannot_be_read_ends_with_2_and_a_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.yaml").write_text("job: extension\nconfig: {name: x, process: [{type: nonsense}]}\n")
    monkeypatch.chdir(tmp_path)
    assert aitk("inspect", *arguments) == 2
    caught = capsys.readouterr()
    assert said in caught.err and "Traceback" not in caught.err


def test_no_torch_is_needed(folder: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path, folder)
    code = f"""
import sys
from toolkit.cli.app import run_command_line
assert run_command_line(["dataset", "inspect", {str(folder)!r}, "--html", {str(tmp_path / "r.html")!r}]) == 0
assert run_command_line(["dataset", "inspect", {str(job)!r}, "--divisor", "16"]) == 0
sys.exit("torch" in sys.modules or "transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout


def test_names_that_the_terminal_cannot_show_end_nothing(folder: Path) -> None:
    (folder / "\u03b1.png").write_bytes(b"no picture")
    code = f"import run; print('\\udcff', run.start(['dataset', 'inspect', '--no-pixels', {str(folder)!r}]))"
    env = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert "\\u03b1.png: not an image" in done.stdout and "\\udcff 0" in done.stdout, done.stderr


def test_all_commands_of_the_group_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert aitk("--help") == 0
    out = capsys.readouterr().out
    for name in ("inspect", "edit", "undo", "repair", "caption-from-filename"):
        assert name in out


def test_a_narrow_terminal_shows_whole_sizes(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert aitk("inspect", folder, "--resolution", "64") == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[lines.index("Buckets (sides are multiples of 16)") + 1 :]
    assert table[0].split() == ["size", "samples"]
    assert [line.split()[:2] for line in table[1:3]] == [["80x48", "1"], ["64x64", "1"]]
