"""Sampled videos: an animated webp and an mp4, and their strip on the contact sheet."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
from PIL import Image

from toolkit.sampling.contact_sheet import contact_sheet
from toolkit.sampling.picture_files import list_pictures, read_metadata, save_animation, save_picture
from toolkit.sampling.video_files import save_mp4

COLORS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (40, 200, 200)]
FRAMES = [Image.new("RGB", (64, 48), color) for color in COLORS]
FACTS = {"prompt": "a caf\u00e9", "seed": 3, "num_frames": 5, "fps": 8}


def near(image: Image.Image, color: tuple[int, int, int], place: tuple[int, int] = (20, 20)) -> bool:
    return bool(np.abs(np.asarray(image.convert("RGB"))[place[1], place[0]].astype(int) - color).max() <= 12)


def test_an_animation_keeps_frames_speed_and_settings(tmp_path: Path):
    path = save_animation(FRAMES, 8, tmp_path, 500, 3, 12, FACTS)
    assert path.name.endswith("__000000500_03.webp") and list_pictures(tmp_path)[0].path == path
    assert read_metadata(path) == {**FACTS, "step": 500, "index": 3}
    with Image.open(path) as image:
        assert image.n_frames == 5 and image.size == (64, 48)  # type: ignore[attr-defined]
        for number, color in enumerate(COLORS):
            image.seek(number)
            image.load()
            assert near(image, color) and image.info["duration"] == 125


def test_an_mp4_keeps_frames_speed_and_settings(tmp_path: Path):
    path = save_mp4(FRAMES, 8, tmp_path / "video.mp4", FACTS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["video.mp4"]
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.average_rate == 8
        assert json.loads(file.metadata["comment"]) == FACTS
        frames = [frame.to_image() for frame in file.decode(stream)]
    assert len(frames) == 5 and all(near(frame, color) for frame, color in zip(frames, COLORS, strict=True))


def test_a_video_is_a_strip_on_the_contact_sheet(tmp_path: Path):
    save_animation(FRAMES, 8, tmp_path, 0, 0, 1, FACTS)
    save_mp4(FRAMES, 8, list_pictures(tmp_path)[0].path.with_suffix(".mp4"), FACTS)
    save_picture(FRAMES[0], tmp_path, 100, 0, 1, "png", FACTS)
    sheet = contact_sheet(tmp_path)
    assert sheet is not None
    pixels = np.asarray(sheet.convert("RGB")).astype(int)
    columns = [np.flatnonzero((np.abs(pixels - COLORS[number]).max(axis=2) <= 12).any(axis=0)) for number in range(5)]
    assert not len(columns[1]) and not len(columns[3])
    first, middle, last = columns[0], columns[2], columns[4]
    assert first.min() < middle.min() < last.min() < first.max()  # the picture of step 100 has the first color too
