"""The index of a folder: what a second scan reads again, what it keeps, and what becomes of a damaged one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from toolkit.data.records import Record, Records
from toolkit.data.scanning.indexed import IndexedRecords
from toolkit.data.scanning.scan import Scan, scan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, three captions and a broken file."""
    for name, size in (("a", (4, 3)), ("b", (5, 3)), ("sub/c", (6, 3)), ("z", (7, 3))):
        path = tmp_path / "set" / f"{name}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path)
        if name != "z":
            path.with_suffix(".txt").write_text(f"text {name}")
    (tmp_path / "set" / "bad.png").write_bytes(b"nonsense")
    return tmp_path / "set"


def again(folder: Path) -> Scan:
    return scan(folder, index=folder.parent / "index")


def files(folder: Path) -> dict[str, int]:
    """A file that is written anew is another one."""
    return {path.name: path.stat().st_ino for path in (folder.parent / "index").iterdir()}


def listed(records: Records) -> list[Record]:
    return [records[row] for row in range(len(records))]


def replace_unseen(path: Path, content: bytes) -> None:
    """Another content of the same length and time, which only reading the file would tell."""
    stat = path.stat()
    assert len(content) == stat.st_size
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_an_index_says_what_a_scan_without_it_says(folder: Path) -> None:
    plain, first, second = scan(folder), again(folder), again(folder)
    assert listed(plain.records) == listed(first.records) == listed(second.records)
    assert plain.problems == first.problems == second.problems
    assert len(plain.problems) == 2 and "bad.png: not an image that can be read; left out" in plain.problems[0]
    assert not (folder / "index").exists() and len(files(folder)) == 1


def test_what_did_not_change_is_neither_read_nor_written(folder: Path) -> None:
    known, before = listed(again(folder).records), files(folder)
    for name in ("a.bmp", "b.bmp", "a.txt", "bad.png"):
        replace_unseen(folder / name, b"#" * (folder / name).stat().st_size)
    second = again(folder)
    assert listed(second.records) == known and files(folder) == before
    assert "bad.png: not an image that can be read; left out" in second.problems[0]


def test_only_what_changed_is_read(folder: Path) -> None:
    again(folder)
    picture, broken = (folder / "b.bmp").read_bytes(), b"#" * (folder / "b.bmp").stat().st_size
    replace_unseen(folder / "b.bmp", broken)
    replace_unseen(folder / "b.txt", b"#" * 6)
    Image.new("RGB", (9, 8)).save(folder / "a.bmp")
    (folder / "sub" / "c.txt").write_text("another text")
    (folder / "z.txt").write_text("at last")
    (folder / "a.txt").unlink()
    found = {record.name: record for record in again(folder).records}
    assert (found["a.bmp"].width, found["a.bmp"].height, found["a.bmp"].caption) == (9, 8, None)
    assert (found["b.bmp"].width, found["b.bmp"].caption) == (5, "text b")
    assert (found["sub/c.bmp"].width, found["sub/c.bmp"].caption) == (6, "another text")
    assert (found["z.bmp"].width, found["z.bmp"].caption) == (7, "at last")
    # a caption is read again without its picture, and a picture without its caption
    (folder / "b.txt").write_text("new text")
    found = {record.name: record for record in again(folder).records}
    assert (found["b.bmp"].width, found["b.bmp"].caption) == (5, "new text")
    os.utime(folder / "b.bmp", ns=(1, 1))
    assert "b.bmp" in again(folder).problems[0]
    (folder / "b.bmp").write_bytes(picture)
    assert listed(again(folder).records) == listed(scan(folder).records)


def test_files_come_go_and_change_their_names(folder: Path) -> None:
    again(folder).records.digests()
    (folder / "b.bmp").unlink()
    (folder / "sub").rename(folder / "0sub")
    Image.new("RGB", (1, 2)).save(folder / "m.png")
    second = again(folder)
    assert [record.name for record in second.records] == ["0sub/c.bmp", "a.bmp", "m.png", "z.bmp"]
    assert listed(second.records)[0].caption == "text sub/c"
    # the hash of what stayed is known, whatever row it is in
    assert [bool(record.known_digest) for record in second.records] == [False, True, False, True]
    assert listed(again(folder).records) == listed(second.records)


def test_hashes_are_read_once(folder: Path) -> None:
    first = again(folder).records
    expected = [record.digest for record in first]
    assert not any(record.known_digest for record in first)
    assert [row.astype("<u8").tobytes() for row in first.digests()] == expected
    assert [record.known_digest for record in first] == expected
    kept = files(folder)
    assert sorted(Path(name).suffix for name in kept) == [".arrow", ".contents"]
    replace_unseen(folder / "a.bmp", b"#" * (folder / "a.bmp").stat().st_size)
    second = again(folder).records
    assert np.array_equal(second.digests(), first.digests()) and files(folder) == kept
    os.utime(folder / "a.bmp", ns=(1, 1))
    (folder / "b.bmp").touch()
    third = again(folder).records
    # a.bmp is broken now; of the others only what has another time is read again
    assert [bool(record.known_digest) for record in third] == [False, True, True]
    assert [row.astype("<u8").tobytes() for row in third.digests()] == expected[1:]


def test_some_hashes_and_those_of_files_that_are_gone(folder: Path) -> None:
    records = again(folder).records
    (folder / "b.bmp").unlink()
    some = records.digests(np.array([1, 3, 1]))
    assert not some[0].any() and not some[2].any() and some[1].astype("<u8").tobytes() == records[3].digest
    assert [bool(record.known_digest) for record in records] == [False, False, False, True]
    assert scan(folder).records.digests().shape == (3, 2)


def test_chosen_records_keep_their_place_in_the_index(folder: Path) -> None:
    records = again(folder).records
    some = records.chosen(np.array([3, 1])).chosen(np.array([1, 0]))
    assert [record.name for record in some] == ["b.bmp", "z.bmp"]
    assert some.widths.tolist() == [5, 7] and some.heights.tolist() == [3, 3] and np.isnan(some.clips).all()
    assert np.array_equal(some.digests(), records.digests()[[1, 3]])
    assert [bool(record.known_digest) for record in again(folder).records] == [True] * 4


def test_captions_come_once_each(folder: Path) -> None:
    (folder / "b.txt").write_text("text a")
    records = again(folder).records
    assert list(records.captions()) == [("text a", None), ("text sub/c", None), (None, None)]
    some = np.array([3, 1])
    assert list(records.captions(some)) == list(records.chosen(some).captions()) == [(None, None), ("text a", None)]


def test_looks_are_remembered(folder: Path) -> None:
    first = again(folder).records
    assert isinstance(first, IndexedRecords) and first.looks().tolist() == [0] * 4
    first.remember_looks(np.array([1, 2, 3, 2**64 - 1], np.uint64))
    (folder / "b.bmp").touch()
    second = again(folder).records
    assert isinstance(second, IndexedRecords) and second.looks().tolist() == [1, 0, 3, 2**64 - 1]


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "version"])
def test_a_damaged_index_is_built_anew_with_a_notice(folder: Path, damage: str) -> None:
    known = listed(again(folder).records)
    (path,) = (folder.parent / "index").glob("*.arrow")
    data = path.read_bytes()
    if damage == "version":
        table = pa.ipc.open_file(pa.py_buffer(data)).read_all().replace_schema_metadata({"aitk": '{"format": "x"}'})
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "text": b"nonsense" * 99, "empty": b""}[damage])
    found = again(folder)
    assert listed(found.records) == known
    assert found.problems[0].startswith(str(path)) and found.problems[0].endswith("the folder is read anew")
    assert len(again(folder).problems) == len(found.problems) - 1


def test_a_place_that_cannot_be_written_is_named_and_does_no_harm(folder: Path) -> None:
    (folder.parent / "index").write_text("a file is in the way")
    found = again(folder)
    assert len(found.records) == 4 and "the next run reads the folder anew" in found.problems[0]
    assert found.records.digests().any(axis=1).all()


def test_what_is_read_otherwise_has_an_index_of_its_own(folder: Path) -> None:
    again(folder)
    index = folder.parent / "index"
    assert scan(folder, "filename", index=index).records[0].caption == "a"
    assert scan(folder, without=[folder / "sub"], index=index).records[2].name == "z.bmp"
    assert len(files(folder)) == 3
    # but the same folder by another way has the same one
    (folder.parent / "link").symlink_to(folder)
    (record, *_) = scan(folder.parent / "link", index=index).records
    assert record.path == folder.parent / "link" / "a.bmp" and len(files(folder)) == 3


def test_a_file_that_could_not_be_opened_is_tried_again(folder: Path) -> None:
    (folder / "gone.png").symlink_to(folder.parent / "elsewhere.png")
    assert any("gone.png: no such file; left out" in line for line in again(folder).problems)
    Image.new("RGB", (3, 3)).save(folder.parent / "elsewhere.png")
    assert "gone.png" in [record.name for record in again(folder).records]


def test_two_processes_at_once(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from toolkit.data.scanning.scan import scan\n"
        "records = scan(Path(sys.argv[1]), index=Path(sys.argv[2])).records\n"
        "print(len(records), int(records.digests().any(axis=1).sum()))"
    )
    command = [sys.executable, "-c", code, str(folder), str(folder.parent / "index")]
    root = Path(__file__).resolve().parents[3]
    running = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].split() for process in running] == [["4", "4"]] * 2
    assert set(files(folder)) == {path.name for path in (folder.parent / "index").glob("[0-9a-f]*")}
    assert all(record.known_digest in (b"", record.digest) for record in again(folder).records)


def test_an_older_table_does_not_speak_for_a_later_one(folder: Path) -> None:
    first = again(folder).records
    (folder / "a.bmp").rename(folder / "q.bmp")
    second = again(folder).records
    # these rows are not the ones in the file any more
    first.digests()
    assert not any(record.known_digest for record in again(folder).records)
    second.digests()
    assert all(record.known_digest == record.digest for record in again(folder).records)


def test_large_trees_are_looked_at_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        path = tmp_path / f"{number:02}" / "a.bmp"
        path.parent.mkdir()
        Image.new("L", (number + 1, 2)).save(path)
        path.with_suffix(".txt").write_text(str(number))
    plain = listed(scan(tmp_path).records)
    monkeypatch.setattr("toolkit.data.scanning.walk.APART_FROM", 10)
    for name, value in {"AT_ONCE": 4, "JUDGED": 1, "APART_FROM": 10}.items():
        monkeypatch.setattr(f"toolkit.data.scanning.index.{name}", value)
    assert listed(scan(tmp_path).records) == plain
    assert [record.caption for record in plain] == [str(number) for number in range(60)]
