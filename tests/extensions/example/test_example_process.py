"""The example process counts, reports, and explains a folder that is not there."""

import json
from pathlib import Path

import pytest
from PIL import Image

from jobs import run_job
from toolkit.registry import get_registry


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    get_registry.cache_clear()


def job(folder: Path, report: Path) -> dict[str, object]:
    process = {"type": "count_images", "folder": str(folder), "report": str(report)}
    return {"job": "extension", "config": {"name": "count", "process": [process]}}


def test_images_and_missing_captions_are_counted_per_folder(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.JPG", "a/b/3.webp"):
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(file)
    (tmp_path / "data/a/1.txt").write_text("one", encoding="utf-8")
    (tmp_path / "data/empty").mkdir()
    report = tmp_path / "reports/images.json"
    run_job(job(tmp_path / "data", report))
    assert json.loads(report.read_text(encoding="utf-8")) == {
        "a": {"images": 2, "without_caption": 1},
        "a/b": {"images": 1, "without_caption": 1},
    }


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        run_job(job(tmp_path / "nowhere", tmp_path / "report.json"))
