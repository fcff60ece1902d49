"""Folders as users have them: what is found, what is left out, and what is said about it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from toolkit.data.scanning.scan import scan, visible_files


def _picture(path: Path, size: tuple[int, int] = (4, 3), caption: str | None = "a") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def test_records_are_sorted_and_complete(tmp_path: Path) -> None:
    for name in ("z.png", "b/c.JPG", "a.webp", "b/a.jpeg", "m.bmp"):
        _picture(tmp_path / name, caption=f"  {name}\n")
    found = scan(tmp_path)
    assert [record.name for record in found.records] == ["a.webp", "b/a.jpeg", "b/c.JPG", "m.bmp", "z.png"]
    assert [record.caption for record in found.records] == [record.name for record in found.records]
    assert {(record.width, record.height) for record in found.records} == {(4, 3)}
    assert found.records[1].path == tmp_path / "b" / "a.jpeg"
    assert found.problems == []


def test_the_order_is_that_of_whole_names_whatever_the_folders(tmp_path: Path) -> None:
    names = ["a-b/c.png", "a.png", "a/a.png", "a/z.png", "a0.png", "b/c/d/e.png", "caf\u00e9.png", "z.png"]
    for name in names[::-1]:
        _picture(tmp_path / name, caption=name)
    for num_workers in (1, 8):
        found = scan(tmp_path, num_workers=num_workers)
        assert [record.name for record in found.records] == names == sorted(names)
        assert [record.caption for record in found.records] == names


def test_a_name_that_is_no_text_is_read_all_the_same(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    try:
        os.rename(tmp_path / "a.png", raw)
    except OSError:
        pytest.skip("the file system takes no such names")
    found = scan(tmp_path, "filename")
    (record,) = found.records
    # no tokenizer takes such a text
    assert os.fsencode(record.path) == raw and record.caption is None
    assert any("its name is not UTF-8; the image counts as having no caption" in line for line in found.problems)


def test_folders_of_references_are_no_data(tmp_path: Path) -> None:
    for name in ("a.png", "control/a.png", "control/deep/b.png"):
        _picture(tmp_path / name)
    assert [record.name for record in scan(tmp_path, without=[tmp_path / "control"]).records] == ["a.png"]
    # a data set may be its own folder of references
    assert len(scan(tmp_path, without=[tmp_path]).records) == 3
    assert sorted(path.name for path in visible_files(tmp_path, [tmp_path / "control"])) == ["a.png", "a.txt"]


def test_hidden_and_cache_folders_are_not_data(tmp_path: Path) -> None:
    for name in ("a.png", ".b.png", ".git/c.png", "_controls/d.png", "x/_latent_cache/e.png", "_t_e_cache/f.png"):
        _picture(tmp_path / name)
    assert [record.name for record in scan(tmp_path).records] == ["a.png"]


def test_a_hidden_folder_above_the_data_does_not_hide_it(tmp_path: Path) -> None:
    _picture(tmp_path / ".home" / "set" / "a.png")
    assert len(scan(tmp_path / ".home" / "set").records) == 1


def test_linked_folders_are_read_once_and_loops_end(tmp_path: Path) -> None:
    _picture(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "set")
    assert [record.name for record in scan(tmp_path / "set").records] == ["linked/a.png"]


def test_orientation_exchanges_the_sides(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (4, 3)).save(tmp_path / "a.jpg", exif=exif)
    assert (scan(tmp_path).records[0].width, scan(tmp_path).records[0].height) == (3, 4)


def test_broken_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    _picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    (tmp_path / "empty.jpg").touch()
    found = scan(tmp_path)
    assert [record.name for record in found.records] == ["good.png"]
    assert found.problems == [
        f"{tmp_path / 'bad.png'}: not an image that can be read; left out",
        f"{tmp_path / 'empty.jpg'}: empty file; left out",
    ]


def test_strict_raises_all_broken_pictures_at_once(tmp_path: Path) -> None:
    _picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match=r"(?s)bad\.png.*empty\.jpg"):
        scan(tmp_path, strict=True)


def test_only_broken_pictures(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"(?s)none of its 1 images.*bad\.png"):
        scan(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        scan(tmp_path / "missing")
    with pytest.raises(ValueError, match="no image found"):
        scan(tmp_path)
    (tmp_path / "a.HEIC").touch()
    with pytest.raises(ValueError, match=r"not read: 1 \.heic"):
        scan(tmp_path)
    with pytest.raises(ValueError, match="not a folder"):
        scan(tmp_path / "a.HEIC")


def test_files_that_look_like_data_but_are_not_read(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    for name in ("b.jxl", "c.JXL", "d.heic", "notes.md"):
        (tmp_path / name).touch()
    assert scan(tmp_path).problems == [f"{tmp_path}: left out; not read: 1 .heic, 2 .jxl"]


def test_missing_and_blank_captions_are_counted_once(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png", caption=None)
    _picture(tmp_path / "b.png", caption=" \n")
    _picture(tmp_path / "c.png", caption="c")
    found = scan(tmp_path)
    assert [record.caption for record in found.records] == [None, None, "c"]
    assert found.problems == [f"{tmp_path}: 2 of 3 images have no caption (first: a.png)"]


def test_caption_encodings(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png", caption=None)
    _picture(tmp_path / "b.png", caption=None)
    (tmp_path / "a.txt").write_bytes("caf\u00e9".encode("utf-8-sig"))
    (tmp_path / "b.txt").write_bytes("caf\u00e9".encode("latin-1"))
    found = scan(tmp_path)
    assert [record.caption for record in found.records] == ["caf\u00e9", None]
    assert f"{tmp_path / 'b.txt'}: not UTF-8 (byte 3); the image counts as having no caption" in found.problems


@pytest.mark.parametrize("ext", ["caption", ".caption"])
def test_caption_extension_with_and_without_dot(tmp_path: Path, ext: str) -> None:
    _picture(tmp_path / "a.b.png", caption=None)
    (tmp_path / "a.b.caption").write_text("text")
    assert scan(tmp_path, ext).records[0].caption == "text"


def test_caption_from_file_name(tmp_path: Path) -> None:
    _picture(tmp_path / "a_red_fox.png", caption="not this")
    assert scan(tmp_path, "filename").records[0].caption == "a red fox"


def test_hash_follows_content(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    _picture(tmp_path / "b.png")
    _picture(tmp_path / "c.png", size=(5, 5))
    first, same, other = scan(tmp_path).records
    assert first.digest == same.digest != other.digest


def test_videos_and_animations_are_records_with_a_length(tmp_path: Path, film: Callable[..., Path]) -> None:
    film(tmp_path / "v.mp4", 9)
    frames = [Image.new("RGB", (6, 4), (30 * index, 0, 0)) for index in range(3)]
    for name in ("moving.gif", "moving.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50)
    frames[0].save(tmp_path / "still.gif")
    _picture(tmp_path / "still.webp")
    found = {record.name: record for record in scan(tmp_path, videos=True).records}
    assert {name: record.clip.num_frames if record.clip else 0 for name, record in found.items()} == {
        "moving.gif": 3,
        "moving.webp": 3,
        "still.gif": 0,
        "still.webp": 0,
        "v.mp4": 9,
    }
    assert (found["moving.gif"].width, found["v.mp4"].height) == (6, 24)
    # a model for pictures sees the first frame of what it reads at all
    plain = scan(tmp_path)
    assert {record.name for record in plain.records} == {"moving.gif", "moving.webp", "still.gif", "still.webp"}
    assert not any(record.clip for record in plain.records)
    assert plain.problems[-1].endswith("only the first frame of animated pictures is trained (first: moving.gif)")
    assert any("not read: 1 .mp4 (videos need num_frames)" in line for line in plain.problems)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_no_picture(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    found = scan(tmp_path)
    assert len(found.records) == 1
    assert f"{tmp_path / 'pipe.jpg'}: not a regular file; left out" in found.problems
