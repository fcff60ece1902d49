"""The `datasets` of a config as items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.datasets import Items, read_datasets, read_triggers


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
