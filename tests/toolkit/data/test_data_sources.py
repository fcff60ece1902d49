"""Metadata files as users have them, and which kind of source a path is taken for."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from toolkit.data.records import digest_of
from toolkit.data.scanning.scan import Scan
from toolkit.data.sources.choice import open_source, read_source
from toolkit.data.sources.metadata import Metadata
from toolkit.data.sources.packed import PackedParquet, SavedDataset
from toolkit.data.sources.reading import Reading
from toolkit.data.sources.shards import Shards

ROOT = Path(__file__).parents[3]
Rows = list[dict[str, Any]]


def _pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4 + number, 3)).save(folder / name)


def _write(file: Path, rows: Rows) -> Path:
    if file.suffix == ".json":
        file.write_text(json.dumps(rows), encoding="utf-8")
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        with open(file, "w", encoding="utf-8", newline="") as lines:
            writer = csv.DictWriter(lines, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return file


def _told(found: Scan) -> list[tuple[str, str | None, str | None]]:
    records = [found.records[row] for row in range(len(found.records))]
    return [(record.name, record.caption, record.short_caption) for record in records]


every_kind = pytest.mark.parametrize("name", ["m.json", "m.jsonl", "m.csv", "m.parquet"])


@every_kind
def test_rows_become_records_sorted_by_name(tmp_path: Path, name: str) -> None:
    _pictures(tmp_path, "z.png", "sub/a.jpg")
    rows = [
        {"file_name": "./z.png", "text": " a z \n", "caption_short": "z"},
        {"file_name": "sub/a.jpg", "text": "an, a", "caption_short": None},
    ]
    found = read_source(_write(tmp_path / name, rows), Reading())
    assert _told(found) == [("sub/a.jpg", "an, a", None), ("z.png", "a z", "z")]
    assert found.records[1].path == tmp_path / "z.png"
    assert found.records.widths.tolist() == [5, 4]
    assert found.problems == []


def test_json_of_ai_toolkit_maps_paths_to_captions_or_objects(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "c.txt").write_text("from the file beside it", encoding="utf-8")
    told = {"b.png": "just text", "a.png": {"caption": "long", "caption_short": "short"}, "c.png": {"caption": ""}}
    (tmp_path / "m.json").write_text("\ufeff" + json.dumps(told), encoding="utf-8")
    found = read_source(tmp_path / "m.json", Reading())
    expected = [("a.png", "long", "short"), ("b.png", "just text", None), ("c.png", "from the file beside it", None)]
    assert _told(found) == expected
    assert found.problems == []


def test_absolute_paths_are_allowed_and_named_as_below_the_folder_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    _pictures(tmp_path, "set/in.png", "out.png")
    rows = [{"path": str(tmp_path / "set" / "in.png")}, {"path": str(tmp_path / "out.png")}]
    found = read_source(_write(tmp_path / "set" / "m.jsonl", rows), Reading())
    assert [name for name, _, _ in _told(found)] == [str(tmp_path / "out.png"), "in.png"]


@every_kind
def test_missing_files_double_rows_and_strange_columns_are_reported(tmp_path: Path, name: str) -> None:
    _pictures(tmp_path, "a.png", "b.png")
    rows = [
        {"file_name": "b.png", "text": "first", "size": "1"},
        {"file_name": "gone.png", "text": "x", "size": "1"},
        {"file_name": "b.png", "text": "second", "size": "1"},
        {"file_name": "", "text": "nobody", "size": "1"},
        {"file_name": "a.png", "text": "", "size": "1"},
    ]
    file = _write(tmp_path / name, rows)
    found = read_source(file, Reading())
    assert _told(found) == [("a.png", None, None), ("b.png", "first", None)]
    place = {"m.json": "entry", "m.parquet": "row"}.get(name, "line")
    shift = 1 if name == "m.csv" else 0
    assert found.problems == [
        f"{file}, {place} {2 + shift}: gone.png: no such file; left out",
        f"{file}, {place} {4 + shift}: no picture is named; left out",
        f"{file}: columns that are not used: size",
        f"{file}: pictures are named again in 1 places (first: {place} {3 + shift}, b.png); the first place counts",
        f"{file}: 1 of 2 pictures have no caption (first: a.png)",
    ]
    with pytest.raises(ValueError, match="no picture is named"):
        read_source(file, Reading(strict=True))


def test_strict_names_missing_and_broken_files(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png")
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    rows = [{"file_name": name} for name in ("a.png", "bad.png", "gone.png")]
    file = _write(tmp_path / "m.jsonl", rows)
    with pytest.raises(
        ValueError, match=r"line 2: bad.png: not an image that can be read; .*line 3: gone.png: no such"
    ):
        read_source(file, Reading(strict=True))
    assert len(read_source(file, Reading()).records) == 1


def test_many_missing_files_are_counted_rather_than_listed(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png")
    rows = [{"file_name": "a.png", "text": "x"}, *({"file_name": f"{n}.png", "text": "x"} for n in range(30))]
    found = read_source(_write(tmp_path / "m.csv", rows), Reading())
    assert len(found.problems) == 11
    assert found.problems[-1] == "and 20 more like that"
    with pytest.raises(ValueError, match="none of its 30 pictures can be read"):
        read_source(_write(tmp_path / "n.csv", rows[1:]), Reading())


@every_kind
def test_columns_can_be_named(tmp_path: Path, name: str) -> None:
    _pictures(tmp_path, "a.png")
    file = _write(tmp_path / name, [{"where": "a.png", "caption": "usual", "mine": "own"}])
    assert _told(read_source(file, Reading(image_column="where"))) == [("a.png", "usual", None)]
    assert _told(read_source(file, Reading(image_column="where", caption_column="mine"))) == [("a.png", "own", None)]
    with pytest.raises(
        ValueError, match=r"no column names the pictures .*; it has where, caption, mine; set image_column"
    ):
        read_source(file, Reading())
    with pytest.raises(ValueError, match="there is no column 'other' \\(caption_column\\)"):
        read_source(file, Reading(image_column="where", caption_column="other"))


def test_captions_that_are_no_text_count_as_missing(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png", "b.png")
    file = _write(tmp_path / "m.jsonl", [{"path": "a.png", "text": 7}, {"path": "b.png", "text": ["x"]}])
    found = read_source(file, Reading())
    assert _told(found) == [("a.png", None, None), ("b.png", None, None)]
    assert f"{file}, line 1: a.png: the caption 7 is no text; it counts as missing" in found.problems


def test_halves_of_characters_are_left_out_of_captions(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png")
    file = _write(tmp_path / "m.jsonl", [{"path": "a.png", "text": "a cat \ud83d"}, {"path": "b\ud83d.png"}])
    assert _told(read_source(file, Reading())) == [("a.png", "a cat", None)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", b'{"a.png": "x",\n "b.png": }', r"m\.json:2: not JSON"),
        ("m.json", b"[1]", "entry 1 is no object"),
        ("m.json", b"7", "neither an object nor a list"),
        ("m.json", b'{"data": [1]}', "'data' is neither a caption nor an object"),
        ("m.json", b"{}", "holds no picture"),
        ("m.jsonl", b'{"file_name": "a.png"}\n{"file_name": ', r"m\.jsonl:2: not JSON"),
        ("m.jsonl", b'\n\n"a.png"', r"m\.jsonl:3: not an object"),
        ("m.jsonl", b'{"file_name": "\xff.png"}', r"not UTF-8 \(byte 15\)"),
        ("m.csv", b"file_name,text\na.png,one, two\n", r"m\.csv:2: more values than the 2 columns; quote commas"),
        ("m.csv", b"file_name,text\n", "holds no picture"),
        ("m.parquet", b"PAR1 or not", "not a parquet file that can be read"),
    ],
)
def test_a_bad_file_is_an_error_that_says_where(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_source(tmp_path / name, Reading())


def test_videos_are_read_as_such_or_named(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png")
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:], duration=100)
    (tmp_path / "c.mp4").write_bytes(b"nonsense")
    file = _write(tmp_path / "m.jsonl", [{"path": name, "text": "x"} for name in ("a.png", "b.gif", "c.mp4")])
    still = read_source(file, Reading())
    assert still.problems == [f"{file}, line 3: c.mp4: is a video (videos need num_frames); left out"]
    assert [still.records[row].clip for row in range(2)] == [None, None]
    moving = read_source(file, Reading(videos=True))
    clip = moving.records[1].clip
    assert clip is not None and clip.last_s == pytest.approx(0.1)


@every_kind
def test_the_index_spares_what_has_not_changed(tmp_path: Path, name: str) -> None:
    _pictures(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    rows = [{"path": f"{name}.png", "text": name if name != "c" else ""} for name in ("a", "b", "c", "bad", "gone")]
    file, reading = _write(tmp_path / name, rows), Reading(index=tmp_path / "index")
    (tmp_path / "c.txt").write_text("beside", encoding="utf-8")
    first = read_source(file, reading)
    assert _told(first) == [("a.png", "a", None), ("b.png", "b", None), ("c.png", "beside", None)]
    # of a parquet file, the header is always read
    still_needed = {file} if name == "m.parquet" else set()
    for picture in {tmp_path / "a.png", tmp_path / "c.png", file} - still_needed:
        # the same size and time: only the index still knows what was in it
        stat = picture.stat()
        picture.write_bytes(bytes(stat.st_size))
        os.utime(picture, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = read_source(file, reading)
    assert _told(again) == _told(first)
    assert again.problems == first.problems
    assert [again.records[row] for row in range(3)] == [first.records[row] for row in range(3)]
    (tmp_path / "c.txt").write_text("otherwise", encoding="utf-8")
    _pictures(tmp_path, "bad.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "b.png")
    changed = read_source(file, reading)
    assert [text for _, text, _ in _told(changed)] == ["a", "b", "bad", "otherwise"]
    assert changed.records.widths.tolist() == [4, 9, 4, 6]
    _write(file, [{"path": "b.png", "text": "other"}, *rows])
    assert [text for _, text, _ in _told(read_source(file, reading))] == ["a", "other", "bad", "otherwise"]


def test_records_are_chosen_and_hashed(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png", "b.png", "c.png")
    rows = [{"path": f"{name}.png", "text": name, "short_caption": name.upper()} for name in "abc"]
    file = _write(tmp_path / "m.jsonl", rows)
    records = read_source(file, Reading(index=tmp_path / "index")).records
    some = records.chosen(np.array([2, 0])).chosen(np.array([1, 0]))
    assert [(some[row].name, some[row].short_caption) for row in range(len(some))] == [("a.png", "A"), ("c.png", "C")]
    assert some.widths.tolist() == [4, 6]
    assert np.isnan(some.clips).all() and some.clips.shape == (2, 2)
    (tmp_path / "c.png").unlink()
    digests = records.digests()
    assert [row.astype("<u8").tobytes() for row in digests[:2]] == [digest_of(tmp_path / f"{n}.png") for n in "ab"]
    assert digests[2].tolist() == [0, 0]
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes() + b"more")
    again = read_source(file, Reading(index=tmp_path / "index")).records
    assert [bool(again[row].known_digest) for row in range(2)] == [True, False]


def test_strict_is_strict_with_an_index_too(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png")
    file = _write(tmp_path / "m.jsonl", [{"path": "a.png", "text": "x"}, {"path": ""}, {"path": "gone.png"}])
    read_source(file, Reading(index=tmp_path / "index"))
    with pytest.raises(ValueError, match="no picture is named"):
        read_source(file, Reading(index=tmp_path / "index", strict=True))


def test_every_path_is_taken_for_what_it_is(tmp_path: Path) -> None:
    _pictures(tmp_path, "plain/a.png", "mixed/a.png")
    for name in (
        "mixed/b.tar",
        "tars/0.tar",
        "tars/README.md",
        "parquet/data/x.parquet",
        "one.TAR",
        "saved/state.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "saved" / "dataset_info.json").touch()
    _write(tmp_path / "plain" / "metadata.jsonl", [{"file_name": "a.png"}])
    assert open_source(tmp_path / "plain") is None
    assert open_source(tmp_path / "mixed") is None
    assert open_source(tmp_path / "plain" / "metadata.jsonl") == Metadata(tmp_path / "plain" / "metadata.jsonl")
    assert open_source(tmp_path / "one.TAR") == Shards(tmp_path / "one.TAR", (tmp_path / "one.TAR",))
    assert open_source(tmp_path / "tars") == Shards(tmp_path / "tars", (tmp_path / "tars" / "0.tar",))
    assert open_source(tmp_path / "saved") == SavedDataset(tmp_path / "saved")
    files = (tmp_path / "parquet" / "data" / "x.parquet",)
    assert open_source(tmp_path / "parquet") == PackedParquet(tmp_path / "parquet", files)


def test_patterns_name_each_shard_or_whatever_is_there(tmp_path: Path) -> None:
    for number in (8, 9, 10):
        (tmp_path / f"s-{number:03}.tar").touch()
    files = tuple(tmp_path / f"s-{number:03}.tar" for number in (8, 9, 10))
    for pattern in ("s-{008..010}.tar", "s-*.tar", "s-0{08,09,10}.tar"):
        assert open_source(tmp_path / pattern) == Shards(tmp_path / pattern, files)
    with pytest.raises(ValueError, match=r"there is no file .*s-011\.tar"):
        open_source(tmp_path / "s-{010..011}.tar")
    with pytest.raises(ValueError, match="no file matches"):
        open_source(tmp_path / "t-*.tar")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s.tar.gz", "is compressed"),
        ("s.tgz", "is compressed"),
        ("a.zip", "neither a folder"),
        ("gone", "no such file"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str, message: str) -> None:
    if name != "gone":
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / name)


def test_a_folder_whose_captions_are_in_a_metadata_file_gets_a_hint(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png")
    file = _write(tmp_path / "metadata.jsonl", [{"file_name": "a.png", "text": "x"}])
    hint = f"{tmp_path}: the captions in metadata.jsonl are read if the data set names that file: {file}"
    assert hint in read_source(tmp_path, Reading()).problems
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    assert read_source(tmp_path, Reading()).problems == []


def test_looking_at_a_path_loads_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from toolkit.data.sources.choice import open_source
open_source(sys.argv[1])
heavy = {"pyarrow", "torch", "datasets", "av"} & set(sys.modules)
assert not heavy, heavy
"""
    (tmp_path / "m.parquet").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.parquet")], env=environment, check=True)
