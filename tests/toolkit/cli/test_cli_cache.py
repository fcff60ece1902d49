"""`aitk cache`: what is cached, whether it is whole, what can go, and filling caches before a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from toolkit.cli.app import run_command_line
from toolkit.cli.cache import read_size
from toolkit.data.cache.rows import RowCache, key_for

ROOT = Path(__file__).resolve().parents[3]
DAY = 86400


def aitk(*arguments: str | Path) -> int:
    return run_command_line(["cache", *(str(argument) for argument in arguments)])


def fill(folder: Path, first: int, count: int, **about: str) -> Path:
    """One file of rows; returns it."""
    before = set(folder.glob("*")) if folder.is_dir() else set()
    cache = RowCache(folder, about=about)
    for number in range(first, first + count):
        cache.put(key_for(number=number), {"x": torch.full((250,), number, dtype=torch.float32)})
    cache.flush()
    (path,) = set(folder.glob("*")) - before
    return path


def used(path: Path, days_ago: float) -> Path:
    """Make a file, or all in a folder, look as if it was used then."""
    for file in [*path.rglob("*"), path]:
        os.utime(file, (time.time() - days_ago * DAY,) * 2)
    return path


def index_of(root: Path, name: str, folder: Path | None) -> Path:
    (root / "index").mkdir(exist_ok=True)
    said = json.dumps({"folder": str(folder)} if folder else {})
    table = pa.table({"width": [1]}).replace_schema_metadata({"aitk": said})
    with pa.ipc.new_file(str(root / "index" / name), table.schema) as writer:
        writer.write_table(table)
    return root / "index" / name


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as training leaves it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AITK_CACHE", raising=False)
    root = Path("output") / ".aitk_cache"
    fill(root / "latents", 0, 3, arch="flux", dtype="bf16")
    fill(root / "latents", 3, 4, arch="flux", dtype="bf16")
    fill(root / "latents", 9, 2, arch="wan")
    fill(root / "text", 20, 1, arch="flux")
    (root / "quantized" / "ab").mkdir(parents=True)
    (root / "quantized" / "ab" / "0.safetensors").write_bytes(bytes(500))
    (tmp_path / "pictures").mkdir()
    index_of(root, "there.arrow", tmp_path / "pictures")
    return root


def test_ls_groups_rows_by_who_made_them(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert aitk("ls") == 0
    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if "arch flux, dtype bf16" in line]
    assert line.split()[:3] == ["latents", "7", "rows"] and "2 files" in line and time.strftime("%Y-%m-%d") in line
    assert aitk("ls", "--json", "--cache", root) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    rows = {(group["kind"], group["about"].get("arch")): group for group in listed["contents"]}
    assert rows["latents", "wan"]["rows"] == 2 and rows["text", "flux"]["rows"] == 1
    assert rows["quantized", None]["bytes"] >= 500 and rows["quantized", None]["rows"] is None
    assert rows["index", None]["about"] == {"folder": str(tmp_path / "pictures")}
    assert rows["latents", "wan"]["written"] and listed["bytes"] > 10_000


def test_listing_and_pruning_load_no_torch(root: Path) -> None:
    for command in (["ls"], ["prune", "--dry-run", "--older-than", "3"], ["verify"]):
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); import run; assert run.start(['cache', *{command!r}]) == 0"
        )
        code += "; assert 'torch' not in sys.modules and 'toolkit.cli.run' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_without_a_cache_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AITK_CACHE", raising=False)
    assert aitk("ls") == 0 and "there is no cache here" in capsys.readouterr().out
    assert aitk("ls", "--cache", tmp_path / "none") == 2 and "is no folder" in capsys.readouterr().err


def test_several_caches_are_all_listed_and_pruned_together(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = used(fill(root.parent / "deep" / ".aitk_cache" / "text", 0, 1), 9)
    assert aitk("ls") == 0
    assert capsys.readouterr().out.count(".aitk_cache: ") == 2
    assert aitk("ls", "--json") == 0
    total = sum(listed["bytes"] for listed in json.loads(capsys.readouterr().out))
    assert aitk("prune", "--max-size", f"{(total - 1) / 1000:.3f}kB") == 0
    assert "deleted 1" in capsys.readouterr().out and not other.exists()
    assert len(list(root.rglob("*.safetensors"))) == 5


def test_verify_names_what_is_damaged_and_deletes_it_only_if_told(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert aitk("verify") == 0
    assert "4 files are whole, 0 are damaged" in capsys.readouterr().out
    broken, short = sorted((root / "latents").iterdir())[:2]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-500] + bytes(40) + whole[-460:])
    short.write_bytes(short.read_bytes()[:100])
    save_file({"a": torch.zeros(1)}, root / "text" / f"{1:024x}.safetensors", metadata={"format": "aitk-rows-1"})
    save_file({"a": torch.zeros(1)}, root / "text" / "lora.safetensors")
    assert aitk("verify") == 1
    text = capsys.readouterr().out
    assert f"{broken}: damaged" in text and f"{short}: damaged" in text and "2 files are whole, 2 are damaged" in text
    assert "1 files in the format of another version" in text and broken.exists()
    assert aitk("verify", "--delete") == 1
    assert not broken.exists() and not short.exists()
    assert aitk("verify") == 0 and len(list((root / "text").iterdir())) == 3


def test_prune_without_options_deletes_only_what_is_useless(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = sorted(path for path in root.rglob("*") if path.is_file())
    old = root / "text" / f"{1:024x}.safetensors"
    save_file({"a": torch.zeros(1)}, old, metadata={"format": "aitk-rows-1"})
    short = root / "latents" / f"{2:024x}.safetensors"
    short.write_bytes(b"half")
    left = root / "latents" / ".aitk-tmp-0123456789ab-x.safetensors"
    left.write_bytes(b"half")
    left = used(left, 1)
    left_folder = root / "quantized" / ".aitk-tmp-0123456789ab-cd"
    left_folder.mkdir()
    (left_folder / "0.safetensors").write_bytes(b"half")
    used(left_folder, 1)
    gone = index_of(root, "gone.arrow", root / "no such folder")
    unreadable = root / "index" / "bad.arrow"
    unreadable.write_bytes(b"half")
    kept = [index_of(root, "unsaid.arrow", None), root / "text" / "mine.safetensors", root / "text" / "notes.txt"]
    save_file({"a": torch.zeros(1)}, kept[1])
    kept[2].touch()
    # it may be written at this moment
    kept.append(root / "latents" / ".aitk-tmp-0123456789ac-y.safetensors")
    kept[3].write_bytes(b"half")
    goes = [old, short, left, left_folder, gone, unreadable]

    assert aitk("prune", "--dry-run") == 0
    text = capsys.readouterr().out
    assert all(f"{path}: " in text for path in goes) and all(path.exists() for path in goes)
    assert "would delete 6" in text and "its folder is gone" in text and "left by a run that was killed" in text
    assert aitk("prune") == 0
    assert "deleted 6" in capsys.readouterr().out
    assert sorted(path for path in root.rglob("*") if path.is_file()) == sorted([*whole, *kept])


def test_prune_by_age_goes_by_the_last_use(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in [*(root / "latents").iterdir(), root / "quantized" / "ab", *(root / "index").iterdir()]:
        used(path, 40)
    RowCache(root / "latents").get(key_for(number=4))
    assert aitk("prune", "--older-than", "30") == 0
    assert "not used for 40 days" in capsys.readouterr().out
    left = RowCache(root / "latents")
    assert [number for number in range(20) if key_for(number=number) in left] == [3, 4, 5, 6]
    assert not list((root / "quantized").iterdir()) and not list((root / "index").iterdir())
    assert len(RowCache(root / "text")) == 1


def test_prune_by_size_deletes_what_was_used_longest_ago(root: Path, tmp_path: Path) -> None:
    for days, path in enumerate(sorted((root / "latents").iterdir())):
        used(path, 10 + days)
    newest = min((root / "latents").iterdir(), key=lambda path: -path.stat().st_mtime)
    used(root / "quantized" / "ab", 20)
    rest = sum(path.stat().st_size for path in [newest, *(root / "text").iterdir(), *(root / "index").iterdir()])
    assert aitk("prune", "--max-size", f"{rest / 1000 + 0.1:.1f}kB", "--cache", root) == 0
    assert list((root / "latents").iterdir()) == [newest] and not list((root / "quantized").iterdir())
    assert len(RowCache(root / "text")) == 1
    assert aitk("prune", "--max-size", "0") == 0
    assert not [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".aitk-lock")]


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no file that is open")
def test_a_run_goes_on_while_its_cache_is_pruned(root: Path) -> None:
    cache = RowCache(root / "latents")
    assert aitk("prune", "--max-size", "0") == 0
    assert cache.gather([key_for(number=number) for number in (0, 9)], "x")[:, 0].tolist() == [0, 9]
    cache.put(key_for(number=50), {"x": torch.zeros(250)})
    cache.flush()
    cache.refresh()
    assert len(cache) == 10 and len(RowCache(root / "latents")) == 1


def test_a_file_that_cannot_be_deleted_is_named_and_the_rest_goes(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held, unlink = sorted((root / "latents").iterdir())[0], Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == held:
            raise PermissionError(13, "in use", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert aitk("prune", "--max-size", "0") == 0
    captured = capsys.readouterr()
    assert f"{held}: not deleted (in use); is a run using it?" in captured.err and "deleted 5" in captured.out
    assert list((root / "latents").iterdir()) == [held]


@pytest.mark.parametrize(
    ("text", "size"), [("50GB", 50 * 10**9), ("1.5 TiB", 3 * 2**39), ("500m", 5 * 10**8), ("7", 7), ("2kib", 2048)]
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert read_size(text) == size


def test_a_size_that_is_none_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert aitk("prune", "--max-size", "many") == 2
    assert "'many' is no size; write 500MB or 50GB" in capsys.readouterr().err and (root / "text").exists()


EXTENSION = """
from jobs.process import BaseExtensionProcess


class Ahead(BaseExtensionProcess):
    uid = name = "ahead"

    def run(self):
        raise AssertionError("trains")

    def fill_caches(self):
        if self.config.get("fails"):
            raise ValueError(self.config["fails"])
        print("filled", self.config["what"])

    @classmethod
    def get_process(cls):
        return cls


class Plain(BaseExtensionProcess):
    uid = name = "plain"

    def run(self):
        raise AssertionError("runs")

    @classmethod
    def get_process(cls):
        return cls


AI_TOOLKIT_EXTENSIONS = [Ahead, Plain]
"""


def build(folder: Path, *processes: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """`aitk cache build` of a job in a folder with an extension of its own."""
    (folder / "extensions" / "mine").mkdir(parents=True, exist_ok=True)
    (folder / "extensions" / "mine" / "__init__.py").write_text(EXTENSION, encoding="utf-8")
    job = {"job": "extension", "config": {"name": "mine", "process": list(processes)}}
    (folder / "job.yaml").write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, str(ROOT / "scripts/aitk.py"), "cache", "build", "job.yaml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_build_fills_caches_and_trains_nothing(tmp_path: Path) -> None:
    result = build(tmp_path, {"type": "ahead", "what": "latents"}, {"type": "plain"})
    assert result.returncode == 0, result.stderr
    assert "filled latents\n" in result.stdout and "a process of type plain keeps no caches" in result.stdout


def test_build_says_what_is_wrong(tmp_path: Path) -> None:
    result = build(tmp_path, {"type": "ahead", "fails": "no picture is there"})
    assert result.returncode == 1 and "job 'mine' failed: no picture is there" in result.stderr
    result = build(tmp_path, {"type": "ahead", "what": "latents", "fails": "what: is unknown"})
    assert result.returncode == 2 and "job.yaml:1: what: is unknown" in result.stderr
    result = build(tmp_path, {"type": "ahaed"})
    assert result.returncode == 2 and "did you mean 'ahead'" in result.stderr
