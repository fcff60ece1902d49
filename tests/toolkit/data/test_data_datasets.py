"""The `datasets` of a config as items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.datasets import Items, Pictures, read_datasets, read_triggers


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
    return [item.text(0, 0) for item in items.items]


def test_every_set_keeps_its_own_settings(folders: list[Path]) -> None:
    first = {"num_repeats": 2, "loss_multiplier": 0.5, "strict": True}
    items = read(folders, first, {"batch_size": 1, "background": [1, 2, 3], "flip_x": True})
    assert [(item.record.name, item.dataset, item.weight) for item in items.items] == [
        *[("a.png", 0, 0.5)] * 2,
        *[("b.png", 0, 0.5)] * 2,
        *[("c.png", 1, 1.0)] * 2,
    ]
    assert items.batch_sizes == [4, 4, 4, 4, 1, 1]
    assert (items.strict, items.backgrounds) == ([True, False], [(255, 255, 255), (1, 2, 3)])
    assert items.buckets == {(48, 16): 2, (32, 32): 4} or items.buckets[(32, 32)] == 4
    assert len({item.id for item in items.items}) == 6


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
    assert all(item.caption.is_fixed for item in items.items)


def test_crops_that_are_not_cached_are_announced(folders: list[Path]) -> None:
    def lines(**keys: Any) -> list[str]:
        return [line for line in read(folders[:1], {"random_crop": True, **keys}).problems if "random_crop" in line]

    assert lines() == []
    assert len(lines(cache_latents=True)) == len(lines(cache_latents_to_disk=True)) == 1


def test_leaving_items_out_keeps_the_rest_in_step(folders: list[Path]) -> None:
    items = read(folders, {}, {"batch_size": 1})
    left = items.without({items.items[0].id})
    assert [item.record.name for item in left.items] == ["b.png", "c.png"]
    assert left.batch_sizes == [4, 1] and left.strict == items.strict


def test_a_missing_or_empty_folder_is_an_error(folders: list[Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, reason in (("nowhere", "no such folder"), ("empty", "no image found")):
        with pytest.raises(ValueError, match=f"{name}: {reason}"):
            read([tmp_path / name])


def test_random_triggers_come_from_a_list_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("\ufeffone\n\n two \n", encoding="utf-8")
    assert read_triggers(str(file)) == read_triggers(["one", " two", ""]) == ("one", "two")


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
    assert [(item.record.name, item.num_frames) for item in items.items] == [("a.png", 1), ("b.png", 1), ("v.mp4", 17)]
    assert len({item.bucket_key for item in items.items}) == 3
    (line,) = items.describe()
    assert line.startswith("3 training samples in 3 buckets (") and line.endswith("x17: 1)")
    assert items.items[2].text(0, 0) == "a video"


def test_a_number_of_frames_that_the_model_does_not_take_is_lowered_with_a_notice(
    folders: list[Path], film: Film
) -> None:
    film(folders[0] / "v.mp4", 30)
    items = watch(folders[0], num_frames=20)
    assert items.items[2].num_frames == 17
    assert any("num_frames 20 is trained as 17; the model takes 4 x n + 1 frames" in line for line in items.problems)


def test_the_file_decides_the_number_of_frames(folders: list[Path], film: Film) -> None:
    for name, count in (("v.mp4", 30), ("w.mp4", 21), ("x.webm", 4)):
        film(folders[0] / name, count)
    items = watch(folders[0], auto_frame_count=True, fps=12)
    assert [item.num_frames for item in items.items] == [1, 1, 13, 9, 1]
    assert not any("num_frames" in line for line in items.problems)


def test_videos_that_are_too_short_are_told(folders: list[Path], film: Film) -> None:
    film(folders[0] / "long.mp4", 30)
    film(folders[0] / "short.mp4", 10)
    items = watch(folders[0], num_frames=17)
    assert [line for line in items.problems if "fewer frames" in line] == [
        f"{folders[0]}: 1 of 2 videos have fewer frames than are asked for; some of them come twice (first: short.mp4)"
    ]
    assert items.items[-1].num_frames == 17


def test_without_num_frames_videos_are_counted_as_not_read(folders: list[Path], film: Film) -> None:
    film(folders[0] / "v.mp4", 5)
    items = watch(folders[0])
    assert [item.num_frames for item in items.items] == [1, 1]
    assert any("not read: 1 .mp4 (videos need num_frames)" in line for line in items.problems)
    assert [item.num_frames for item in watch(folders[0], Pictures()).items] == [0, 0]


def test_a_model_for_pictures_refuses_video(folders: list[Path]) -> None:
    for keys, name in (({"num_frames": 17}, "num_frames"), ({"auto_frame_count": True}, "auto_frame_count")):
        with pytest.raises(ValueError, match=f"{name} is for video, but the model is one for pictures"):
            watch(folders[0], Pictures(), **keys)


def test_broken_videos_are_left_out_or_end_the_run(folders: list[Path], film: Film) -> None:
    (folders[0] / "v.mp4").write_bytes(b"nonsense")
    items = watch(folders[0], num_frames=5)
    assert len(items.items) == 2
    assert any("v.mp4: Invalid data" in line and line.endswith("left out") for line in items.problems)
    with pytest.raises(ValueError, match=r"v\.mp4"):
        watch(folders[0], num_frames=5, strict=True)


def test_the_first_frame_is_given_where_it_is_asked_for_or_needed(folders: list[Path], film: Film) -> None:
    film(folders[0] / "v.mp4", 30)

    def given(taken: Pictures, **keys: Any) -> list[bool]:
        return [item.references.first_frame for item in watch(folders[0], taken, num_frames=5, **keys).items]

    assert given(FIRST_FRAME) == [False] * 3
    # nothing would be left to learn of a picture
    assert given(FIRST_FRAME, do_i2v=True) == [False, False, True]
    needed = Pictures(frame_stride=4, references="first_frame", needs_references=True)
    assert given(needed) == [True] * 3
    assert given(VIDEO, do_i2v=True) == [False] * 3
    lines = watch(folders[0], VIDEO, num_frames=5, do_i2v=True).problems
    assert any("do_i2v has no effect" in line for line in lines)
