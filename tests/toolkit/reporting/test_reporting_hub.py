"""Uploads to the Hub, by the real client against a server on the loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, hub_of_the_client
from huggingface_hub import constants

from toolkit.cli.app import run_command_line
from toolkit.reporting.hub_check import why_no_upload
from toolkit.reporting.hub_upload import NotUploaded, files_of, upload
from toolkit.reporting.model_card import is_untouched, sealed, write_card
from toolkit.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[3]
CODE = 'pipe.load_lora_weights(".", weight_name="run.safetensors")  # the folder of this file'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_of_the_client(monkeypatch, tmp_path) as served:
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A finished run: final weights, a checkpoint, state, pictures of two steps, a card."""
    run = RunFolder(tmp_path / "output" / "run", "run")
    run.samples_dir.mkdir(parents=True)
    for name in ("run.safetensors", "run_000000002.safetensors", "optimizer.pt", "config.yaml", "metrics.jsonl"):
        (run.path / name).write_bytes(name.encode() * 10)
    text = "config: {process: [{save: {hf_repo_id: ann/mine, hf_private: true}}]}\n"
    (run.path / "config.yaml").write_text(text, encoding="utf-8")
    for name in ("1__000000002_0.jpg", "2__000000004_0.jpg", "3__000000004_0.jpg", "3__000000004_1.webp"):
        (run.samples_dir / name).write_bytes(name.encode())
    for name in ("3__000000004_1.mp4", "contact_sheet.png"):
        (run.samples_dir / name).write_bytes(name.encode())
    run.record(2, ["run_000000002.safetensors"])
    run.record(4, ["run.safetensors"], final=True)
    write_card(run.path / "README.md", f"---\nlicense: mit\n---\n\n# run\n\n```python\n{CODE}\n```\n")
    return run


UPLOADED = {
    "README.md",
    "run.safetensors",
    "samples/3__000000004_0.jpg",
    "samples/3__000000004_1.webp",
    "samples/3__000000004_1.mp4",
    "samples/contact_sheet.png",
}


@pytest.mark.parametrize(
    ("token", "repository", "text"),
    [
        ("hf_write", "ann/mine", ""),
        ("hf_write", "mine", ""),
        ("hf_write", "studio/mine", ""),
        ("hf_fine", "ann/mine", ""),
        ("hf_wrong", "ann/mine", "does not know the token"),
        ("hf_read", "ann/mine", "'for reading' may only read"),
        ("hf_narrow", "ann/mine", "may not write to ann/mine"),
        ("hf_fine", "studio/mine", "may not write to studio/mine"),
        ("hf_write", "museum/mine", "may only read in museum"),
        ("hf_write", "bob/mine", "that of ann, who is not a member of bob: name ann/mine"),
        ("", "ann/mine", "`hf auth login`, or set HF_TOKEN"),
    ],
)
def test_the_check_says_what_is_wrong(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str, repository: str, text: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    found = why_no_upload(repository)
    assert (text in found) if text else found == ""
    assert not hub.repositories, "a check makes nothing"
    assert "hf_w" not in found


def test_the_check_of_a_repository_that_is_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["ann/mine"] = {}
    assert why_no_upload("ann/mine") == ""
    assert "is there and public, but it should be private" in why_no_upload("ann/mine", private=True)
    hub.private.add("ann/mine")
    assert why_no_upload("ann/mine", private=True) == ""
    hub.failing = "auth-check"
    assert "may not write to ann/mine" in why_no_upload("ann/mine")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in why_no_upload("ann/mine")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in why_no_upload("ann/mine") and "aitk publish" in why_no_upload("ann/mine")


def test_an_upload_holds_weights_card_and_the_last_pictures(hub: Hub, folder: RunFolder) -> None:
    address = upload(folder, "mine", private=True, include=["samples"])
    files = hub.repositories["ann/mine"]
    assert set(files) == UPLOADED and hub.private == {"ann/mine"}
    assert address == f"{hub.url}/ann/mine" and hub.commits == ["Upload run with aitk"]
    assert files["run.safetensors"] == (folder.path / "run.safetensors").read_bytes()
    card = files["README.md"].decode()
    assert 'load_lora_weights("ann/mine", weight_name="run.safetensors")\n' in card and is_untouched(card)
    assert CODE in (folder.path / "README.md").read_text(encoding="utf-8")


def test_all_that_can_be_uploaded(folder: RunFolder) -> None:
    names = files_of(folder, ["samples", "config", "checkpoints", "state"])
    assert set(names) - UPLOADED == {"config.yaml", "run_000000002.safetensors", "optimizer.pt"}
    assert set(files_of(folder, [])) == {"README.md", "run.safetensors"}
    (folder.path / "run.safetensors").unlink()
    with pytest.raises(ValueError, match=r"run.safetensors is missing"):
        files_of(folder, [])


def test_a_second_upload_sends_only_what_is_new(hub: Hub, folder: RunFolder) -> None:
    upload(folder, "ann/mine", False, ["samples"])
    hub.requests.clear()
    upload(folder, "ann/mine", False, ["samples"])
    assert not [request for request in hub.requests if request.startswith("PUT")] and len(hub.commits) == 1
    (folder.path / "run.safetensors").write_bytes(b"trained on")
    upload(folder, "ann/mine", False, ["samples"])
    assert hub.repositories["ann/mine"]["run.safetensors"] == b"trained on" and len(hub.commits) == 2


def test_a_card_that_was_edited_on_the_hub_stays(
    hub: Hub, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(folder, "ann/mine", False, [])
    files = hub.repositories["ann/mine"]
    files["README.md"] = edited = files["README.md"].replace(b"# run", b"# The run of Ann")
    upload(folder, "ann/mine", False, [])
    assert files["README.md"] == edited and "was edited there" in capsys.readouterr().out
    (folder.path / "README.md").write_text("# mine\n", encoding="utf-8")
    upload(folder, "ann/mine", False, [])
    assert files["README.md"] == b"# mine\n", "what the user wrote here is what the user wants there"


@pytest.mark.parametrize("failing", ["/repos/create", "/preupload", "/batch", "/blobs", "/commit"])
def test_a_failed_upload_changes_nothing_and_says_how_to_repeat_it(hub: Hub, folder: RunFolder, failing: str) -> None:
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    hub.failing = failing
    with pytest.raises(NotUploaded, match=r"Everything is in .*aitk publish .*run --repo ann/mine"):
        upload(folder, "ann/mine", False, ["samples"])
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before
    assert not hub.repositories.get("ann/mine") and not hub.commits, "all of it or nothing"
    hub.failing = ""
    upload(folder, "ann/mine", False, ["samples"])
    assert set(hub.repositories["ann/mine"]) == UPLOADED


def test_nothing_goes_to_a_public_repository_that_should_be_private(hub: Hub, folder: RunFolder) -> None:
    hub.repositories["ann/mine"] = {}
    with pytest.raises(NotUploaded, match="public"):
        upload(folder, "ann/mine", True, [])
    assert not hub.repositories["ann/mine"]


def test_publish_by_the_config_of_the_run(
    hub: Hub, folder: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(folder.path)
    assert run_command_line(["publish", path, "--dry-run"]) == 0
    assert "to ann/mine, private if it is made:" in capsys.readouterr().out and not hub.requests
    assert run_command_line(["publish", path, "--repo", "studio/ours", "--public", "--include", "config"]) == 0
    assert "config.yaml" in hub.repositories["studio/ours"] and not hub.private
    assert run_command_line(["publish", path]) == 0
    assert set(hub.repositories["ann/mine"]) == UPLOADED and hub.private == {"ann/mine"}
    for wrong in (["--repo", "a--b/c"], ["--include", "all"], ["--repo", "bob/mine"]):
        assert run_command_line(["publish", path, *wrong]) == 2
    errors = capsys.readouterr().err
    assert "is no name of a repository" in errors and "there is no 'all'" in errors and "not a member of bob" in errors
    hub.failing = "/commit"
    (folder.path / "run.safetensors").write_bytes(b"trained on")
    assert run_command_line(["publish", path]) == 1
    assert run_command_line(["publish", str(folder.path.parent)]) == 2


def test_the_command_line_goes_by_the_environment(hub: Hub, folder: RunFolder, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_write", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    code = "import sys, run; code = run.start(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", code, "publish", str(folder.path), "--repo", "mine"],
        cwd=ROOT,
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(hub.repositories["ann/mine"]) == UPLOADED


def test_a_seal_survives_what_the_way_through_the_hub_does(tmp_path: Path) -> None:
    text = sealed("---\na: 1\n---\n\n# b\n")
    assert is_untouched(text) and is_untouched(sealed(text)) and sealed(sealed(text)) == text
    assert not is_untouched(text.replace("# b", "# c")) and not is_untouched("# b\n")
    card = tmp_path / "README.md"
    assert write_card(card, "# one\n") and write_card(card, "# two\n")
    card.write_text(card.read_text().replace("two", "three"))
    assert not write_card(card, "# four\n") and "three" in card.read_text()
