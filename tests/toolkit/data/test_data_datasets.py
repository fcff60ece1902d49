"""The `datasets` of a config as items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.datasets import Items, Pictures, read_datasets
from toolkit.data.pictures.pixels import item_pixels
from toolkit.data.rules import read_triggers


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two folders: a wide and a square picture with captions; one square picture without."""
    made = [tmp_path / "one", tmp_path / "two"]
    for folder in made:
        folder.mkdir()
    for path, size, text in (
        (made[0] / "a.png", (64, 32), "a cat, blue"),
        (made[0] / "b.png", (32, 32), "[trigger] in a hat"),
        (made[1] / "c.png", (32, 32), ""),
    ):
        Image.new("RGB", size).save(path)
        if text:
            path.with_suffix(".txt").write_text(text)
    return made


def read(folders: list[Path], *changes: dict[str, Any], **options: Any) -> Items:
    padded = [*changes, *({} for _ in folders[len(changes) :])]
    sections = [
        DatasetSection.model_validate({"folder_path": str(folder), "resolution": 32, **change})
        for folder, change in zip(folders, padded, strict=True)
    ]
    return read_datasets(sections, 16, options.pop("batch_size", 4), options.pop("trigger", None), **options)


def texts(items: Items) -> list[str]:
    return [item.text(0, 0) for item in items]


def test_every_set_keeps_its_own_settings(folders: list[Path]) -> None:
    first = {"num_repeats": 2, "loss_multiplier": 0.5, "strict": True}
    items = read(folders, first, {"batch_size": 1, "background": [1, 2, 3], "flip_x": True})
    assert [(item.record.name, item.treatment.dataset, item.treatment.weight) for item in items] == [
        *[("a.png", 0, 0.5)] * 2,
        *[("b.png", 0, 0.5)] * 2,
        *[("c.png", 1, 1.0)] * 2,
    ]
    assert items.batch_sizes().tolist() == [4, 4, 4, 4, 1, 1]
    treatments = [part.treatment for part in items.datasets]
    assert [rule.strict for rule in treatments] == [True, False]
    assert [rule.background for rule in treatments] == [(255, 255, 255), (1, 2, 3)]
    assert items.buckets == {"32x16": 2, "32x32": 4} or items.buckets["32x32"] == 4
    assert len({item.id for item in items}) == 6


def test_the_trigger_comes_from_the_set_or_else_from_the_run(folders: list[Path]) -> None:
    items = read(folders, {"trigger_word": "mochi"}, trigger="kit")
    assert texts(items) == ["mochi a cat, blue", "mochi in a hat", "kit"]
    assert texts(read(folders)) == ["a cat, blue", "in a hat", ""]


def test_a_missing_caption_has_a_default(folders: list[Path]) -> None:
    assert texts(read(folders, {}, {"default_caption": "a thing"}))[2] == "a thing"
    problems = read(folders).problems
    assert len(problems) == 1 and "1 of 1 images have no caption (first: c.png)" in problems[0]


def test_without_captions_only_the_trigger_is_left_and_it_is_fixed(folders: list[Path]) -> None:
    loud = {
        "default_caption": "a thing",
        "shuffle_tokens": True,
        "token_dropout_rate": 0.9,
        "random_triggers": ["x", "y"],
    }
    items = read(folders, loud, loud, trigger="kit", use_captions=False)
    assert texts(items) == ["kit"] * 3
    assert all(item.treatment.caption.is_fixed for item in items)


def test_leaving_items_out_keeps_the_rest_in_step(folders: list[Path]) -> None:
    left = read(folders, {}, {"batch_size": 1}).without([0])
    assert [item.record.name for item in left] == ["b.png", "c.png"]
    assert left.batch_sizes().tolist() == [4, 1]


def test_a_missing_or_empty_folder_is_an_error(folders: list[Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, reason in (("nowhere", "no such file or folder"), ("empty", "no image found")):
        with pytest.raises(ValueError, match=f"{name}: {reason}"):
            read([tmp_path / name])


def test_random_triggers_come_from_a_list_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("\ufeffone\n\n two \n", encoding="utf-8")
    assert read_triggers(str(file)) == read_triggers(["one", " two", ""]) == ("one", "two")


def test_captions_of_the_pictures_can_be_left_aside_or_preceded(folders: list[Path]) -> None:
    prompt = {"default_caption": "a photo"}
    assert texts(read(folders, {**prompt, "captions": "ignore"}))[:2] == ["a photo", "a photo"]
    assert texts(read(folders[:1], {**prompt, "captions": "prepend", "trigger_word": "kit"})) == [
        "kit a photo, a cat, blue",
        "a photo, kit in a hat",
    ]


def test_regularization_pictures_have_a_weight_of_their_own(folders: list[Path]) -> None:
    items = read(folders, {"loss_multiplier": 3}, {"is_reg": True, "loss_multiplier": 2}, reg_weight=0.25)
    assert [(part.treatment.is_reg, part.treatment.weight) for part in items.datasets] == [(False, 3), (True, 0.5)]


def test_filters_name_what_they_leave_out(folders: list[Path]) -> None:
    items = read(folders[:1], {"min_resolution": 40})
    assert [(item.record.name, item.size) for item in items] == [("a.png", (32, 16))]
    (line,) = [line for line in items.problems if "left out" in line]
    assert line.endswith("1 of 2 pictures have fewer than 40 x 40 pixels (min_resolution); left out "
                         "(first: b.png, 32 x 32)")  # fmt: skip
    items = read(folders[:1], {"max_aspect": 1.5, "flip_x": True})
    assert [item.record.name for item in items] == ["b.png", "b.png"]
    assert "are longer than 1.5 : 1 (max_aspect); left out (first: a.png, 64 x 32)" in "".join(items.problems)
    assert [item.record.name for item in read(folders[:1], {"max_aspect": 2, "min_resolution": 32})] == [
        "a.png",
        "b.png",
    ]
    Image.new("RGB", (60, 2)).save(folders[0] / "c.png")
    both = [line for line in read(folders[:1], {"max_aspect": 2, "min_resolution": 32}).problems if "left out" in line]
    assert len(both) == 1 and "(min_resolution)" in both[0]
    with pytest.raises(ValueError, match="no picture is left; lower min_resolution"):
        read(folders[:1], {"min_resolution": 1000})


def test_a_metadata_file_has_short_captions_and_columns_of_any_name(folders: list[Path]) -> None:
    file = folders[0] / "list.jsonl"
    rows = ['{"image": "a.png", "caption": "long", "caption_short": "short", "told": "other"}', '{"image": "b.png"}']
    file.write_text("\n".join(rows), encoding="utf-8")
    assert texts(read([file]))[0] == "long"
    assert texts(read([file], {"use_short_captions": True}))[0] == "short"
    assert texts(read([file], {"caption_column": "told"}))[0] == "other"
    assert any(
        "use_short_captions has no effect" in line for line in read(folders, {"use_short_captions": True}).problems
    )


def test_without_buckets_every_picture_is_the_same_square(folders: list[Path]) -> None:
    items = read(folders[:1], {"buckets": False, "resolution": 40})
    assert [item.size for item in items] == [(32, 32)] * 2
    Image.new("RGB", (20, 90)).save(folders[0] / "c.png")
    items = read(folders[:1], {"buckets": False, "resolution": [32, 48]})
    assert [item.size for item in items] == [(32, 32)] * 3 + [(48, 48)] * 3
    (line,) = [line for line in items.problems if "enlarged" in line]
    assert "without buckets, 3 of 3 pictures are enlarged to 48 x 48 (first: a.png)" in line
    assert items[2].box() == pytest.approx((0, 35 / 90, 1, 55 / 90))


def test_a_random_scale_takes_parts_of_every_size_down_to_the_pixels(tmp_path: Path) -> None:
    Image.new("RGB", (320, 320)).save(tmp_path / "a.png")
    for keys, smallest in (({}, 0.1), ({"scale": 0.5}, 0.2)):
        item = read([tmp_path], {"random_scale": True, **keys})[0]
        assert item.treatment.is_random
        boxes = [item.box(1, epoch) for epoch in range(300)]
        shares = [box[2] - box[0] for box in boxes]
        assert boxes == [item.box(1, epoch) for epoch in range(300)]
        assert smallest <= min(shares) < smallest * 1.1 and 0.9 < max(shares) <= 1
        assert all(min(box) >= 0 and box[2] <= 1.0001 and box[3] <= 1.0001 for box in boxes)
        assert len({round(box[0], 3) for box in boxes}) > 100


def test_a_small_part_of_a_large_jpeg_is_as_sharp_as_the_picture(tmp_path: Path) -> None:
    stripes = np.zeros((1600, 1600, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 255
    Image.fromarray(stripes).save(tmp_path / "a.jpg", quality=95)
    item = read([tmp_path], {"random_scale": True})[0]
    shares = {epoch: item.box(0, epoch)[2] - item.box(0, epoch)[0] for epoch in range(40)}
    pixels = item_pixels(item, 0, min(shares, key=shares.__getitem__)).astype(int)
    # decoded at a reduced size, the stripes would be one gray
    assert min(shares.values()) < 0.03 and pixels.max() - pixels.min() > 150


def test_of_an_animation_the_first_frame_is_trained_with_a_note(folders: list[Path]) -> None:
    first, second = (Image.new("RGB", (32, 32), color) for color in ((0, 0, 255), (255, 0, 0)))
    first.save(folders[0] / "moving.GIF", save_all=True, append_images=[second], duration=100)
    first.save(folders[0] / "calm.gif")
    items = read(folders[:1])
    assert [item.record.name for item in items] == ["a.png", "b.png", "calm.gif", "moving.GIF"]
    assert (item_pixels(items[3]) == (0, 0, 255)).all()
    (line,) = [line for line in items.problems if "animated" in line]
    assert line.endswith("only the first frame of animated pictures is trained (first: moving.GIF)")
    (folders[0] / "moving.GIF").unlink()
    assert not any("animated" in line for line in read(folders[:1]).problems)


# -- video ------------------------------------------------------------------------------------------------------------

Film = Callable[..., Path]
VIDEO = Pictures(frame_stride=4)
FIRST_FRAME = Pictures(frame_stride=4, references="first_frame")


def watch(folder: Path, taken: Pictures = VIDEO, **keys: Any) -> Items:
    section = DatasetSection.model_validate({"folder_path": str(folder), "resolution": 32, **keys})
    return read_datasets([section], 16, 4, None, taken=taken)


def test_frames_are_part_of_the_bucket_and_told(folders: list[Path], film: Film) -> None:
    film(folders[0] / "v.mp4", 30)
    (folders[0] / "v.txt").write_text("a video")
    items = watch(folders[0], num_frames=17)
    assert [(item.record.name, item.num_frames) for item in items] == [("a.png", 1), ("b.png", 1), ("v.mp4", 17)]
    assert len(items.buckets) == 3
    (line,) = items.describe()
    assert line.startswith("3 training samples in 3 buckets (") and "x17: 1" in line
    assert items[2].text(0, 0) == "a video"


def test_a_number_of_frames_that_the_model_does_not_take_is_lowered_with_a_notice(
    folders: list[Path], film: Film
) -> None:
    film(folders[0] / "v.mp4", 30)
    items = watch(folders[0], num_frames=20)
    assert items[2].num_frames == 17
    assert any("num_frames 20 is trained as 17; the model takes 4 x n + 1 frames" in line for line in items.problems)


def test_the_file_decides_the_number_of_frames(folders: list[Path], film: Film) -> None:
    for name, count in (("v.mp4", 30), ("w.mp4", 21), ("x.webm", 4)):
        film(folders[0] / name, count)
    items = watch(folders[0], auto_frame_count=True, fps=12)
    assert [item.num_frames for item in items] == [1, 1, 13, 9, 1]
    assert not any("num_frames" in line for line in items.problems)


def test_videos_that_are_too_short_are_told(folders: list[Path], film: Film) -> None:
    film(folders[0] / "long.mp4", 30)
    film(folders[0] / "short.mp4", 10)
    items = watch(folders[0], num_frames=17)
    assert [line for line in items.problems if "fewer frames" in line] == [
        f"{folders[0]}: 1 of 2 videos have fewer frames than are asked for; some of them come twice (first: short.mp4)"
    ]
    assert items[-1].num_frames == 17


def test_without_num_frames_videos_are_counted_as_not_read(folders: list[Path], film: Film) -> None:
    film(folders[0] / "v.mp4", 5)
    items = watch(folders[0])
    assert [item.num_frames for item in items] == [1, 1]
    assert any("not read: 1 .mp4 (videos need num_frames)" in line for line in items.problems)
    assert [item.num_frames for item in watch(folders[0], Pictures())] == [0, 0]


def test_a_model_for_pictures_refuses_video(folders: list[Path]) -> None:
    for keys, name in (({"num_frames": 17}, "num_frames"), ({"auto_frame_count": True}, "auto_frame_count")):
        with pytest.raises(ValueError, match=f"{name} is for video, but the model is one for pictures"):
            watch(folders[0], Pictures(), **keys)


def test_broken_videos_are_left_out_or_end_the_run(folders: list[Path], film: Film) -> None:
    (folders[0] / "v.mp4").write_bytes(b"nonsense")
    items = watch(folders[0], num_frames=5)
    assert len(items) == 2
    assert any("v.mp4: Invalid data" in line and line.endswith("left out") for line in items.problems)
    with pytest.raises(ValueError, match=r"v\.mp4"):
        watch(folders[0], num_frames=5, strict=True)


def test_the_first_frame_is_given_where_it_is_asked_for_or_needed(folders: list[Path], film: Film) -> None:
    film(folders[0] / "v.mp4", 30)

    def given(taken: Pictures, **keys: Any) -> list[bool]:
        return [item.references.first_frame for item in watch(folders[0], taken, num_frames=5, **keys)]

    assert given(FIRST_FRAME) == [False] * 3
    # nothing would be left to learn of a picture
    assert given(FIRST_FRAME, do_i2v=True) == [False, False, True]
    needed = Pictures(frame_stride=4, references="first_frame", needs_references=True)
    assert given(needed) == [True] * 3
    assert given(VIDEO, do_i2v=True) == [False] * 3
    # ai-toolkit's UI writes it for every model
    assert not any("do_i2v" in line for line in watch(folders[0], VIDEO, num_frames=5, do_i2v=True).problems)
