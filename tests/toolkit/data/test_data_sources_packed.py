"""Hugging Face data sets and parquet files with pictures in them: unpacked once, with the real library."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from toolkit.data.records import digest_of
from toolkit.data.scanning.scan import Scan
from toolkit.data.sources import packed
from toolkit.data.sources.choice import read_source
from toolkit.data.sources.reading import Reading

ROOT = Path(__file__).parents[3]
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _picture(size: tuple[int, int] = (4, 3), kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size).save(content, kind)
    return content.getvalue()


def _parquet(file: Path, images: list[Any], **columns: list[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(images, PICTURE), **columns}), file)
    return file


def _told(found: Scan) -> list[tuple[str, str | None, str | None]]:
    records = [found.records[row] for row in range(len(found.records))]
    return [(record.name, record.caption, record.short_caption) for record in records]


def _shards(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*") if file.is_file())


def test_pictures_of_parquet_files_are_unpacked_once(tmp_path: Path) -> None:
    loose = tmp_path / "loose.jpg"
    loose.write_bytes(_picture((9, 9), "JPEG"))
    images = [
        {"bytes": _picture(), "path": "sub/cat.v2.png"},
        {"bytes": _picture((5, 5), "JPEG"), "path": None},
        {"bytes": None, "path": str(loose)},
        None,
        {"bytes": b"nonsense", "path": "bad.png"},
    ]
    texts = ["a cat", "", "on disk", "nobody", "broken"]
    file = _parquet(tmp_path / "x.parquet", images, text=texts, caption_short=["c", None, None, None, None])
    found = read_source(file, Reading(cache=tmp_path / "cache"))
    assert _told(found) == [
        ("000000000/cat_v2.png", "a cat", "c"),
        ("000000001.jpeg", None, None),
        ("000000002/loose.jpg", "on disk", None),
    ]
    assert found.records[2].digest == digest_of(loose)
    assert found.problems == [
        f"{found.records[0].path.parent}/000000003.png: empty file; left out",
        f"{found.records[0].path.parent}/000000004/bad.png: not an image that can be read; left out",
        f"{file}: 1 of 3 pictures have no caption (first: 000000001.jpeg)",
    ]
    times = [shard.stat().st_mtime_ns for shard in (tmp_path / "cache").rglob("*.tar")]
    assert _told(read_source(file, Reading(cache=tmp_path / "cache"))) == _told(found)
    assert [shard.stat().st_mtime_ns for shard in (tmp_path / "cache").rglob("*.tar")] == times
    with pytest.raises(ValueError, match=r"bad\.png"):
        read_source(file, Reading(cache=tmp_path / "cache", strict=True))


def test_unpacking_goes_on_where_it_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "SHARD_BYTES", 4000)
    images = [{"bytes": _picture((4 + n, 3)), "path": f"{n}.png"} for n in range(7)]
    _parquet(tmp_path / "set" / "data" / "train-00000-of-00002.parquet", images[:3], caption=["x"] * 3)
    _parquet(tmp_path / "set" / "data" / "train-00001-of-00002.parquet", images[3:], caption=["x"] * 4)
    _parquet(tmp_path / "set" / "data" / "test-00000-of-00001.parquet", images[:1], caption=["x"])
    reading = Reading(cache=tmp_path / "cache")
    whole = read_source(tmp_path / "set", reading)
    assert whole.records.widths.tolist() == list(range(4, 11))
    names = _shards(tmp_path / "cache")
    assert len(names) > 2
    folder = whole.records[0].path.parent
    kept = (folder / names[0]).stat().st_mtime_ns
    (folder / names[1]).unlink()
    (folder / ".aitk-tmp-000000000000-x.partial").write_bytes(b"of a process that was killed")
    again = read_source(tmp_path / "set", reading)
    assert [again.records[row] for row in range(7)] == [whole.records[row] for row in range(7)]
    assert [name for name in _shards(tmp_path / "cache") if name.endswith(".tar")] == names
    assert (folder / names[0]).stat().st_mtime_ns == kept


def test_other_columns_are_unpacked_anew(tmp_path: Path) -> None:
    images = [{"bytes": _picture(), "path": None}]
    other = pa.array([{"bytes": _picture((8, 8)), "path": None}], PICTURE)
    file = _parquet(tmp_path / "x.parquet", images, caption=["usual"], mine=["own"], label=[3], sketch=other)
    reading = Reading(cache=tmp_path / "cache")
    assert _told(read_source(file, reading)) == [("000000000.png", "usual", None)]
    assert _told(read_source(file, Reading(cache=reading.cache, caption_column="mine")))[0][1] == "own"
    assert read_source(file, Reading(cache=reading.cache, image_column="sketch")).records.widths.tolist() == [8]
    with pytest.raises(ValueError, match=r"column 'label' \(caption_column\) holds no text; texts: caption, mine"):
        read_source(file, Reading(cache=reading.cache, caption_column="label"))
    with pytest.raises(ValueError, match=r"column 'gone' .* is not there"):
        read_source(file, Reading(cache=reading.cache, caption_column="gone"))


def test_splits_without_train_are_refused(tmp_path: Path) -> None:
    for split in ("test", "validation"):
        _parquet(tmp_path / f"{split}-00000-of-00001.parquet", [{"bytes": _picture(), "path": None}])
    with pytest.raises(ValueError, match=r"none of its splits is 'train' \(test, validation\)"):
        read_source(tmp_path, Reading(cache=tmp_path / "cache"))


PROGRAM = """
import json, sys
import run
run.put_root_first()
run.hide_own_datasets()
from toolkit.data.sources.choice import read_source
from toolkit.data.sources.reading import Reading
from pathlib import Path
found = read_source(sys.argv[1], Reading(cache=Path(sys.argv[2])))
print(json.dumps([(r.name, r.caption, r.width) for r in (found.records[n] for n in range(len(found.records)))]))
"""


def _read_as_the_program_does(folder: Path, cache: Path, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(cache / "hub")}
    arguments = [sys.executable, "-c", program, str(folder), str(cache)]
    # in the folder of the program, whose own folder `datasets` is then in the way
    return subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_saved_data_set_is_read_with_the_real_library(tmp_path: Path) -> None:
    library = pytest.importorskip("datasets")
    for number in range(3):
        Image.new("RGB", (4 + number, 3)).save(tmp_path / f"p{number}.png")
    paths = [str(tmp_path / f"p{number}.png") for number in range(3)]
    table = library.Dataset.from_dict({"picture": paths, "text": ["a", "b", "c"]})
    table = table.cast_column("picture", library.Image())
    library.DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(str(tmp_path / "saved"))
    result = _read_as_the_program_does(tmp_path / "saved", tmp_path / "cache")
    assert result.returncode == 0, result.stderr
    expected = [[f"00000000{number}/p{number}.png", "abc"[number], 4 + number] for number in range(3)]
    assert json.loads(result.stdout) == expected
    one = read_source(tmp_path / "saved" / "train", Reading(cache=tmp_path / "cache"))
    assert [record.name for record in (one.records[row] for row in range(3))] == [name for name, _, _ in expected]
    assert len(list((tmp_path / "cache" / "unpacked").iterdir())) == 1
    with pytest.raises(ValueError, match="column 'nothing'"):
        read_source(tmp_path / "saved", Reading(cache=tmp_path / "cache", caption_column="nothing"))


@pytest.mark.parametrize("state", ["sys.modules['datasets'] = None", "sys.modules['datasets'] = type(sys)('datasets')"])
def test_without_the_library_the_error_tells_what_to_install(tmp_path: Path, state: str) -> None:
    """As when it is not installed, hidden by our start or not."""
    for name in ("dataset_info.json", "state.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    program = PROGRAM.replace("from toolkit", f"{state}\nfrom toolkit", 1)
    result = _read_as_the_program_does(tmp_path, tmp_path / "cache", program)
    assert result.returncode != 0
    assert 'pip install "aitk[huggingface-datasets]"' in result.stderr
