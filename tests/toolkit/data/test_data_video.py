"""Real video files: their headers, and the right frames of them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data.bucket import bucket_for
from toolkit.data.frames import Clip, FrameRule
from toolkit.data.items import DatasetItems, expand
from toolkit.data.pictures.image import BrokenImage
from toolkit.data.pictures.pixels import first_frame, item_pixels
from toolkit.data.pictures.video import nearest, read_clip, read_frames
from toolkit.data.scanning.scan import scan
from toolkit.data.treatment import Treatment

Film = Callable[..., Path]
ENDINGS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")
PORTRAIT = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
"""The matrix of a telephone held upright: right becomes down, so it is shown turned clockwise."""


def bucket(width: int, height: int, resolution: int) -> tuple[int, int]:
    return bucket_for(width, height, resolution, 16)


def numbers(path: Path, times: tuple[float, ...], step: int = 4) -> list[int]:
    """The frames at some times, by their gray levels."""
    found = read_clip(path)
    assert found is not None
    frames = [np.asarray(image) for image in read_frames(path, found[1], times)]
    return [round(float(frame[:, 10:].mean()) / step) for frame in frames]


def turn(path: Path) -> None:
    """Write the matrix of a portrait video into an mp4."""
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40
    path.write_bytes(data[:at] + PORTRAIT + data[at + len(PORTRAIT) :])


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_header_tells_size_length_and_rate(tmp_path: Path, film: Film, ending: str) -> None:
    found = read_clip(film(tmp_path / f"a{ending}", 40, fps=20))
    assert found is not None
    size, clip = found
    assert size == (32, 24)
    assert clip.num_frames == 40 and clip.fps == 20 and clip.last_s == pytest.approx(39 / 20, abs=2e-3)


@pytest.mark.parametrize("ending", ENDINGS)
def test_frames_are_those_at_the_times(tmp_path: Path, film: Film, ending: str) -> None:
    path = film(tmp_path / f"a{ending}", 40, fps=20)
    assert numbers(path, FrameRule(9, 4).times(Clip(1.95, 20))) == [0, 5, 10, 15, 19, 24, 29, 34, 39]
    assert numbers(path, FrameRule(40, 1).times(Clip(1.95, 20))) == list(range(40))
    # every other one, and with a jump to the middle of a group of pictures
    assert numbers(path, tuple(index / 10 for index in range(5))) == [0, 2, 4, 6, 8]
    assert numbers(path, (1.5, 1.55, 1.9)) == [30, 31, 38]
    assert numbers(path, (1.6, 1.6, 1.62)) == [32, 32, 32]


def test_another_rate_takes_the_nearest_frames(tmp_path: Path, film: Film) -> None:
    for ending in (".mp4", ".mkv"):
        path = film(tmp_path / f"a{ending}", 24, fps=24)
        assert numbers(path, tuple(index / 16 for index in range(9))) == [0, 1, 3, 4, 6, 7, 9, 10, 12]
        assert numbers(path, tuple(index / 48 for index in range(5))) == [0, 0, 1, 1, 2]


def test_nearest_of_uneven_frames() -> None:
    frames = [(0.0, "a"), (0.1, "b"), (0.5, "c")]
    assert "".join(nearest(frames, [0, 0.04, 0.06, 0.1, 0.29, 0.31, 0.5, 9])) == "aabbbccc"
    assert "".join(nearest([(0.2, "a"), (0.3, "b")], [0.0, 0.21, 0.3])) == "aab"
    with pytest.raises(ValueError, match="no frame"):
        list(nearest([], [0.0]))


def test_a_turned_video_is_seen_upright(tmp_path: Path, film: Film) -> None:
    path = film(tmp_path / "a.mp4", 9)
    turn(path)
    found = read_clip(path)
    assert found is not None and found[0] == (24, 32)
    (frame,) = read_frames(path, found[1], (8 / 24,), expected=found[0])
    pixels = np.asarray(frame)
    # the black left edge is on top
    assert pixels.shape == (32, 24, 3)
    assert pixels[:7].max() < 4 and abs(int(pixels[9:].min()) - 32) < 3


def test_items_crop_scale_and_mirror_every_frame(tmp_path: Path, film: Film) -> None:
    film(tmp_path / "a.mp4", 17, size=(64, 32))
    rule = FrameRule(5, 4)
    items = DatasetItems(scan(tmp_path, videos=True).records, [32], bucket, Treatment(frames=rule), flip_x=True)
    plain, mirrored = items
    assert items.sizes().tolist() == [[32, 16, 5]] * 2 == [[*plain.size, plain.num_frames]] * 2
    pixels = item_pixels(plain)
    assert pixels.shape == (5, 16, 32, 3) and pixels.dtype == np.uint8
    assert [round(float(frame[:, 12:].mean()) / 4) for frame in pixels] == [0, 4, 8, 12, 16]
    assert np.array_equal(item_pixels(mirrored), pixels[:, :, ::-1])
    assert np.array_equal(first_frame(plain), pixels[0])


def test_a_picture_among_videos_is_one_frame(tmp_path: Path, film: Film) -> None:
    film(tmp_path / "a.mp4", 5)
    Image.new("RGB", (32, 32), (200, 0, 0)).save(tmp_path / "b.png")
    records = scan(tmp_path, videos=True).records
    items = expand(records, [32], 16, Treatment(frames=FrameRule(5, 4, fps=12)))
    video, picture = items
    assert item_pixels(picture).shape == (1, 32, 32, 3) and picture.fps == 12
    assert video.fps == pytest.approx(24) and video.times() == FrameRule(5, 4).times(Clip(4 / 24, 24))
    assert items.sizes()[:, 2].tolist() == [5, 1] == [video.num_frames, picture.num_frames]


def test_every_video_has_the_frames_that_it_is_long_enough_for(tmp_path: Path, film: Film) -> None:
    for number, count in enumerate((9, 14, 9, 30)):
        film(tmp_path / f"{number}.mp4", count, fps=10)
    Image.new("RGB", (32, 24)).save(tmp_path / "4.png")
    rule = FrameRule(5, 4, fps=10, auto=True)
    items = expand(scan(tmp_path, videos=True).records, [32, 16], 16, Treatment(frames=rule))
    assert items.sizes()[:, 2].tolist() == [9, 13, 9, 29, 1] * 2 == [item.num_frames for item in items]


def test_a_part_is_drawn_once_per_repeat(tmp_path: Path, film: Film) -> None:
    film(tmp_path / "a.mp4", 40, fps=20)
    rule = FrameRule(5, 4, fps=20, shrink=False)
    items = DatasetItems(scan(tmp_path, videos=True).records, [32], bucket, Treatment(frames=rule), repeats=4)
    starts = [item.times(7)[0] for item in items]
    assert len(set(starts)) == 4 and starts == [item.times(7)[0] for item in items]
    assert starts != [item.times(8)[0] for item in items]
    assert all(0 <= start <= 35 / 20 for start in starts)


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_animated_pictures_are_videos(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGBA", (20, 10), (20 * index,) * 3 + (255,)) for index in range(8)]
    hole = (1, 2, 3) if ending == ".webp" else (60, 60, 60)
    if ending == ".webp":
        frames[3].putalpha(0)
    path = tmp_path / f"a{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    found = read_clip(path)
    assert found is not None
    size, clip = found
    assert size == (20, 10) and clip.num_frames == 8 and clip.fps == pytest.approx(10)
    images = list(read_frames(path, clip, (0.0, 0.3, 0.48, 0.7), background=(1, 2, 3)))
    assert [image.getpixel((0, 0)) for image in images] == [(0, 0, 0), hole, (100,) * 3, (140,) * 3]


def test_still_pictures_are_no_videos(tmp_path: Path) -> None:
    for name in ("a.png", "a.gif", "a.webp", "a.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
        assert read_clip(tmp_path / name) is None


def test_files_that_are_no_videos_are_named_with_the_reason(tmp_path: Path) -> None:
    contents = {"empty.mp4": b"", "text.mkv": b"nonsense" * 50}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BrokenImage, match=name) as error:
            read_clip(tmp_path / name)
        assert "Errno" not in error.value.reason
    with pytest.raises(BrokenImage, match="no such file"):
        read_clip(tmp_path / "gone.mp4")


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm", ".avi"])
@pytest.mark.parametrize("share", [0.6, 0.3])
def test_a_video_that_ends_early_is_broken(tmp_path: Path, film: Film, ending: str, share: float) -> None:
    path = film(tmp_path / f"a{ending}", 60, fps=20)
    found = read_clip(path)
    assert found is not None
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    for times in (FrameRule(13, 4).times(found[1]), (2.5, 2.95)):
        with pytest.raises(BrokenImage, match=r"a\."):
            list(read_frames(path, found[1], times))


def test_a_file_that_was_exchanged_is_broken(tmp_path: Path, film: Film) -> None:
    path = film(tmp_path / "a.mp4", 5)
    with pytest.raises(BrokenImage, match="is now 32 x 24, was 64 x 48"):
        list(read_frames(path, Clip(4 / 24, 24), (0.0,), expected=(64, 48)))
