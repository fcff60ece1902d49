"""Tar shards: samples, captions, damage, and the index that spares the next start the walk."""

import io
import json
import os
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data.pictures.image import BrokenImage, has_alpha, open_image, read_size
from toolkit.data.records import digest_of
from toolkit.data.scanning.scan import Scan
from toolkit.data.sources.choice import read_source
from toolkit.data.sources.reading import Reading


def _picture(color: str = "red", size: tuple[int, int] = (4, 3), kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, color).save(content, kind)
    return content.getvalue()


def _tar(file: Path, members: dict[str, bytes | str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def _told(found: Scan) -> list[tuple[str, str | None, str | None]]:
    records = [found.records[row] for row in range(len(found.records))]
    return [(record.name, record.caption, record.short_caption) for record in records]


def test_samples_share_the_name_up_to_the_first_dot(tmp_path: Path) -> None:
    told = {"prompt": "described", "short_caption": "d", "width": 4}
    file = _tar(
        tmp_path / "s.tar",
        {
            "c.json": json.dumps(told),
            "c.jpg": _picture(kind="JPEG"),
            "a.txt": " beside it \n",
            "a.PNG": _picture(),
            "a.json": json.dumps(told),
            "sub/b.1.webp": _picture(kind="WEBP"),
            "sub/b.caption": "of b",
            "bare.png": _picture(),
            "._a.png": b"of another system",
            "only.txt": "no picture",
        },
    )
    found = read_source(file, Reading())
    assert _told(found) == [
        ("s.tar/a.PNG", "beside it", "d"),
        ("s.tar/bare.png", None, None),
        ("s.tar/c.jpg", "described", "d"),
        ("s.tar/sub/b.1.webp", "of b", None),
    ]
    assert found.problems == [f"{file}: 1 of 4 pictures have no caption (first: s.tar/bare.png)"]
    assert _told(read_source(file, Reading(caption_column="width")))[2][1] is None
    assert _told(read_source(file, Reading(caption_ext="filename")))[0][1] == "a"


def test_pictures_are_read_in_place(tmp_path: Path) -> None:
    red, blue = _picture("red"), _picture("blue", (6, 5))
    file = _tar(tmp_path / "s.tar", {"a.png": red, "b.png": blue})
    record = read_source(file, Reading()).records[1]
    (tmp_path / "b.png").write_bytes(blue)
    assert (record.path, record.width, record.height) == (file, 6, 5)
    assert open_image(record.path, part=record.part).getpixel((0, 0)) == (0, 0, 255)
    assert not has_alpha(record.path, record.part)
    assert record.digest == digest_of(tmp_path / "b.png")


def test_shards_keep_their_own_names(tmp_path: Path) -> None:
    for number in (0, 1):
        _tar(tmp_path / f"{number}" / "s.tar", {"a.png": _picture(), "a.txt": f"{number}"})
    found = read_source(tmp_path / "{0,1}" / "s.tar", Reading())
    assert _told(found) == [("0/s.tar/a.png", "0", None), ("1/s.tar/a.png", "1", None)]
    assert [found.records[row].path for row in (0, 1)] == [tmp_path / "0" / "s.tar", tmp_path / "1" / "s.tar"]


def test_the_later_of_two_members_with_one_name_counts(tmp_path: Path) -> None:
    file = _tar(tmp_path / "s.tar", {"a.png": _picture("red"), "a.txt": "x"})
    data = _picture("blue", (9, 9))
    with tarfile.open(file, "a") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    found = read_source(file, Reading())
    assert found.records.widths.tolist() == [9]


def test_a_cut_tar_gives_what_is_whole(tmp_path: Path) -> None:
    big = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(big).save(content, "PNG")
    members = {"a.png": _picture(), "a.txt": "x", "b.png": content.getvalue(), "b.txt": "y"}
    whole = _tar(tmp_path / "s.tar", members).read_bytes()
    cut = tmp_path / "cut.tar"
    for size in (4 * 512 + 2000, 4 * 512, 4 * 512 + 100):
        cut.write_bytes(whole[:size])
        found = read_source(cut, Reading())
        assert _told(found) == [("cut.tar/a.png", "x", None)]
        assert any(line.startswith(f"{cut}") and "cut off" in line for line in found.problems), found.problems
        with pytest.raises(ValueError, match="cut off"):
            read_source(cut, Reading(strict=True))


def test_broken_pictures_and_captions_are_named(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {"a.png": _picture(), "a.txt": b"\xff", "b.png": b"nonsense", "c.png": b""}
    file = _tar(tmp_path / "s.tar", {**members, "d.jpg": _picture(), "d.json": "{", "d.mask.png": _picture()})
    found = read_source(file, Reading())
    assert [name for name, _, _ in _told(found)] == ["s.tar/a.png", "s.tar/d.jpg"]
    assert found.problems == [
        f"{file}/b.png: not an image that can be read; left out",
        f"{file}/c.png: empty file; left out",
        f"{file}/a.txt: not UTF-8 (byte 0); not read",
        f"{file}/d: has 2 pictures; .jpg is taken",
        f"{file}/d.json: not JSON: Expecting property name enclosed in double quotes; not read",
        f"{file}: 2 of 2 pictures have no caption (first: s.tar/a.png)",
    ]


def test_names_and_captions_that_are_not_utf8_stop_nothing(tmp_path: Path) -> None:
    file = tmp_path / "s.tar"
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name, data in (
            ("caf\xe9.png", _picture()),
            ("caf\xe9.txt", b"coffee"),
            ("half.png", _picture()),
            ("half.json", b'{"caption": "a cat \\ud83d"}'),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert _told(read_source(file, Reading())) == [
        ("s.tar/caf\\xe9.png", "coffee", None),
        ("s.tar/half.png", "a cat", None),
    ]


def test_what_is_no_tar_or_holds_no_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(b"\x1f\x8b\x08 compressed after all" * 60)
    with pytest.raises(ValueError, match=r"no picture found in 1 tar files; .*not an uncompressed tar file"):
        read_source(tmp_path / "s.tar", Reading())
    with pytest.raises(ValueError, match="no picture found"):
        read_source(_tar(tmp_path / "t.tar", {"a.txt": "x"}), Reading())


def test_the_index_is_used_until_the_tar_changes(tmp_path: Path) -> None:
    file = _tar(tmp_path / "s.tar", {"a.png": _picture(), "a.txt": "first", "b.png": b"nonsense"})
    reading = Reading(index=tmp_path / "index")
    before = read_source(file, reading)
    stat = file.stat()
    # the same size and time: only the index can still know what was in it
    file.write_bytes(bytes(stat.st_size))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = read_source(file, reading)
    assert _told(again) == _told(before) == [("s.tar/a.png", "first", None)]
    assert again.problems == before.problems
    assert again.records[0] == before.records[0]
    _tar(file, {"a.png": _picture(size=(7, 7)), "a.txt": "second"})
    assert _told(read_source(file, reading)) == [("s.tar/a.png", "second", None)]
    assert _told(read_source(file, Reading(index=reading.index, caption_ext="caption"))) == [
        ("s.tar/a.png", "second", None)
    ]
    for kept in (tmp_path / "index").iterdir():
        kept.write_bytes(b"damaged")
    assert _told(read_source(file, reading)) == [("s.tar/a.png", "second", None)]


def test_hashes_of_contents_are_read_once(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {"b.png": _picture("red"), "a.png": _picture("blue"), "c.png": _picture("lime")}
    file, reading = _tar(tmp_path / "s.tar", members), Reading(index=tmp_path / "index")
    records = read_source(file, reading).records
    assert records[0].known_digest == b""
    found = records.chosen(np.array([2, 0])).digests()
    assert [row.astype("<u8").tobytes() for row in found] == [records[2].digest, records[0].digest]
    assert records.digests(np.array([1])).tolist() == records.digests()[1:2].tolist()
    stat = file.stat()
    data = file.read_bytes()
    file.write_bytes(bytes(len(data)))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = read_source(file, reading).records
    assert again.digests().tolist() == records.digests().tolist()
    assert again[1].known_digest == records[1].digest
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))
    assert read_source(file, reading).records[1].known_digest == b""


def test_orientation_is_found_inside_an_archive(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    Image.new("RGB", (4, 3)).save(content, "PNG")
    plain = content.getvalue()
    note = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(note)) + b"eXIf" + note + struct.pack(">I", zlib.crc32(b"eXIf" + note))
    # behind the pixels, where only hopping over the chunks finds it
    late = plain[:-12] + chunk + plain[-12:]
    (tmp_path / "x").write_bytes(b"before" + late + b"after")
    part = (6, len(late))
    assert read_size(tmp_path / "x", part) == (3, 4)
    assert open_image(tmp_path / "x", part=part).size == (3, 4)
    with pytest.raises(BrokenImage, match=r"x \(at byte 0\): not an image"):
        read_size(tmp_path / "x", (0, 6))


def test_a_part_ends_where_it_ends(tmp_path: Path) -> None:
    picture = _picture("red", (40, 30))
    (tmp_path / "x").write_bytes(picture + picture)
    with pytest.raises(BrokenImage, match="truncated"):
        open_image(tmp_path / "x", part=(0, len(picture) // 2))


def test_videos_in_an_archive_are_read_in_place(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 32, 24
        for shade in range(0, 250, 25):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    from toolkit.data.pictures.video import read_clip, read_frames

    file = _tar(tmp_path / "s.tar", {"a.png": _picture(), "v.mp4": (tmp_path / "v.mp4").read_bytes()})
    found = read_source(file, Reading(videos=True))
    record = found.records[1]
    expected = read_clip(tmp_path / "v.mp4")
    assert expected is not None and ((record.width, record.height), record.clip) == expected
    assert record.clip is not None
    times = (0.0, 0.4)
    inside = list(read_frames(record.path, record.clip, times, part=record.part))
    outside = list(read_frames(tmp_path / "v.mp4", record.clip, times))
    assert [list(map(int, np.asarray(a).ravel())) for a in inside] == [
        list(map(int, np.asarray(b).ravel())) for b in outside
    ]
