"""What the commands print, and their exit codes; how `aitk dataset` reaches them is not this file's matter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from toolkit.cli import dataset_edit
from toolkit.data.labels import journal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a_red-car (1).png", "b.png"):
        Image.new("RGB", (8, 8), "red").save(data / name)
    (data / "b.txt").write_bytes(b"a cat\r\n")
    return data


def call(*arguments: object) -> Result:
    app = typer.Typer()
    for name in ("edit", "undo", "caption_from_filename", "repair"):
        app.command(name.replace("_", "-"))(getattr(dataset_edit, name))
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_dry_run_shows_the_change_and_does_nothing(folder: Path) -> None:
    result = call("edit", folder, "--find", "cat", "--replace", "dog", "--dry-run")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "b.txt",
        "  - a cat",
        "  + a dog",
        "1 of 1 captions would change; 1 picture has no caption file",
    ]
    assert (folder / "b.txt").read_bytes() == b"a cat\r\n" and not (folder / ".aitk").exists()


def test_edit_and_undo(folder: Path) -> None:
    assert call("undo", folder, "--list").exit_code == 0
    assert "1 of 1 captions changed" in call("edit", folder, "--trigger", "ohwx").output
    assert (folder / "b.txt").read_bytes() == b"ohwx a cat\r\n"
    assert "edit" in call("undo", folder, "--list").output
    assert "would undo" in call("undo", folder, "--dry-run").output
    assert (folder / "b.txt").read_bytes() == b"ohwx a cat\r\n"
    result = call("undo", folder)
    assert "1 files; 0 earlier edits can be undone" in result.output
    assert (folder / "b.txt").read_bytes() == b"a cat\r\n"
    result = call("undo", folder)
    assert result.exit_code == 2 and "no edit to undo" in result.output


def test_undo_refuses_files_that_were_changed_since(folder: Path) -> None:
    call("edit", folder, "--prefix", "x ")
    (folder / "b.txt").write_bytes(b"by hand")
    result = call("undo", folder)
    assert result.exit_code == 2 and "b.txt: was changed since" in result.output and "--force" in result.output
    assert (folder / "b.txt").read_bytes() == b"by hand"
    assert call("undo", folder, "--force").exit_code == 0
    assert (folder / "b.txt").read_bytes() == b"a cat\r\n"


def test_shown_changes_are_capped(folder: Path) -> None:
    for number in range(30):
        (folder / f"c{number:02d}.jpg").write_bytes(b"")
        (folder / f"c{number:02d}.txt").write_bytes(b"a cat")
    output = call("edit", folder, "--prefix", "x ", "--dry-run").output
    assert output.count("  + x a cat") == 20 and "... (--all shows the rest)" in output and "31 of 31" in output
    assert call("edit", folder, "--prefix", "x ", "--dry-run", "--all").output.count("  + x a cat") == 31


@pytest.mark.parametrize(
    "arguments, said",
    [((), "nothing to do"), (("--find", "(", "--regex"), "no regular expression")],
)
def test_what_cannot_be_done_is_told(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    result = call("edit", folder, *arguments)
    assert result.exit_code == 2 and said in result.output


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    for arguments in (("edit", "--prefix", "x"), ("undo",), ("caption-from-filename",), ("repair", "--out", "new")):
        result = call(arguments[0], tmp_path / "none", *arguments[1:])
        assert result.exit_code == 2 and "no such folder" in result.output


def test_captions_from_names(folder: Path, tmp_path: Path) -> None:
    (folder / "IMG_0001.png").write_bytes(b"")
    output = call("caption-from-filename", folder, "--dry-run").output
    assert "a_red-car (1).txt (new)\n  + a red car" in output and "1 captions would be written" in output
    assert not (folder / "a_red-car (1).txt").exists()
    output = call("caption-from-filename", folder, "--log", tmp_path / "logs/names.log").output
    assert "1 captions written, 1 kept (--overwrite replaces them), 1 names say nothing" in output
    assert (folder / "a_red-car (1).txt").read_text() == "a red car\n"
    assert (tmp_path / "logs/names.log").read_text().splitlines() == [
        "a_red-car (1).txt: written: a red car",
        "IMG_0001.png: its name says nothing; skipped",
    ]
    assert (folder / "b.txt").read_bytes() == b"a cat\r\n"
    assert "1 captions written" in call("caption-from-filename", folder, "--overwrite").output
    assert (folder / "b.txt").read_bytes() == b"b\n" and len(journal.edits(folder)) == 2


def test_repair(folder: Path, tmp_path: Path) -> None:
    (folder / "wrong.jpg").write_bytes((folder / "b.png").read_bytes())
    out = tmp_path / "new"
    result = call("repair", folder, "--out", out)
    assert result.exit_code == 0
    assert "wrong.jpg: PNG by content -> wrong.png" in result.output
    assert "1 pictures repaired, 2 copied as they are, 0 beyond repair, 1 captions copied" in result.output
    (folder / "broken.jpg").write_bytes(b"")
    result = call("repair", folder, "--out", out)
    assert result.exit_code == 1 and "broken.jpg: empty file; beyond repair" in result.output
    assert "3 were there already" in result.output
    assert call("repair", folder, "--out", out, "--format", "bmp").exit_code == 2


def test_a_folder_without_pictures_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for command, *options in (("edit", "--prefix", "x"), ("caption-from-filename",), ("repair", "--out", "new")):
        result = call(command, tmp_path / "empty", *(str(tmp_path / o) if o == "new" else o for o in options))
        assert result.exit_code == 2 and "there is no picture" in result.output


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are always text")
def test_names_that_are_not_text_stop_nothing(folder: Path, tmp_path: Path) -> None:
    odd = os.fsencode(folder) + b"/odd\xff"
    for ending in (b".txt", b".jpg"):
        with open(odd + ending, "wb") as file:
            file.write((folder / "b.png").read_bytes() if ending == b".jpg" else b"a dog")
    log = tmp_path / "names.log"
    result = call("caption-from-filename", folder, "--overwrite", "--log", log)
    assert result.exit_code == 0 and "2 captions written" in result.output
    assert "odd\\udcff.jpg: its name is not UTF-8; skipped" in log.read_text(encoding="utf-8")
    result = call("edit", folder, "--prefix", "x ", "--dry-run")
    assert result.exit_code == 0 and "odd\\udcff.txt\n" in result.output
    result = call("repair", folder, "--out", tmp_path / "new")
    assert result.exit_code == 0 and "odd\\udcff.jpg: PNG by content -> odd\\udcff.png" in result.output
