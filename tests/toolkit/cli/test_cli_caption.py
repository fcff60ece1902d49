"""`aitk caption`: options become a job of kind `caption`; exit codes; the whole way with a tiny BLIP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from toolkit.cli.app import run_command_line


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, color in enumerate(("red", "green")):
        Image.new("RGB", (40, 30), color).save(folder / f"{index}.png")
    return folder


def test_captions_a_folder_with_a_tiny_blip(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from extensions_built_in.captioners.tiny import save_blip

    model = save_blip(tmp_path / "blip")
    options = ["--model", str(model), "--device", "cpu", "--output", str(tmp_path / "output"), "--batch-size", "2"]
    options += ["--prefix", "{trigger}, ", "--suffix", "!", "--trigger", "m1k4", "--quantize", "qint8"]
    options += ["--min-length", "2", "--max-length", "4", "--prompt", "a red", "--ext", "caption"]
    assert run_command_line(["caption", str(pictures), *options]) == 0
    texts = [(pictures / f"{index}.caption").read_text() for index in range(2)]
    assert all(text.startswith("m1k4, a red ") and text.endswith("!\n") for text in texts)
    log = (tmp_path / "output/caption_pictures/captions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line).get("status") for line in log] == [None, "written", "written", None]
    capsys.readouterr()
    assert run_command_line(["caption", str(pictures), *options]) == 0
    assert "0 to caption" in capsys.readouterr().out


def test_a_model_that_cannot_be_fetched_is_named_with_its_key(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", "nobody/no-such-captioner", "--output", str(tmp_path / "output"), "--device", "cpu"]
    assert run_command_line(["caption", str(pictures), *options]) == 2
    said = capsys.readouterr().err
    assert "caption.model_name_or_path: nobody/no-such-captioner: config.json is not in the cache" in said
    assert "run `hf download nobody/no-such-captioner` where" in said and "model.name_or_path" not in said


def test_dry_run_loads_no_model(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["caption", str(pictures), "--dry-run", "--output", str(tmp_path / "output")]) == 0
    out = capsys.readouterr().out
    assert "blip, Salesforce/blip-image-captioning-base" in out and "2 to caption" in out and "0.png" in out
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--captioner", "blib"], "caption.type: no captioner is named 'blib'; did you mean 'blip'"),
        (["--captioner", "wd_tagger", "--prompt", "x"], "caption.caption_prompt: "),
        (["--quantize", "qint3"], "caption.qtype: "),
        (["--prefix", "{trigger}"], "caption.prefix: holds {trigger}"),
        (["--device", "tpu"], "device: must be auto"),
        (["--set", "caption.nothing=1"], "there is no key 'nothing' in caption"),
        (["--model", "not a model"], "caption.model_name_or_path: 'not a model' is neither"),
    ],
)
def test_bad_options(options: list[str], message: str, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["caption", str(pictures), *options]) == 2
    assert message in capsys.readouterr().err


def test_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["caption", str(tmp_path / "none"), "--dry-run"]) == 2
    assert "there is no file or folder" in capsys.readouterr().err
