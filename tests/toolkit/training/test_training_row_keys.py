"""A key holds all that decides a row, so that no cache serves one that was made otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from toolkit.data.cache.keys import KEY_BYTES
from toolkit.data.caption import CaptionRule
from toolkit.data.frames import Clip, FrameRule
from toolkit.data.item import Item
from toolkit.data.items import DatasetItems, Items
from toolkit.data.pictures.augment import Augment, Step
from toolkit.data.pictures.masks import MaskRule
from toolkit.data.pictures.references import References
from toolkit.data.records import ListedRecords, Record
from toolkit.data.treatment import Treatment
from toolkit.training.row_keys import RowKeys, latent_key

ENCODER = bytes(range(KEY_BYTES))
FLIP = Augment((Step("HorizontalFlip"),))
MATTERS: dict[str, Any] = {
    "background": (0, 0, 0),
    "random_crop": True,
    "random_scale": True,
    "augment": FLIP,
    "mask": MaskRule(),
}
"""Another value of every field that changes latents or mask."""
WITHOUT_EFFECT: dict[str, Any] = {
    "batch_size": 2,
    "weight": 0.5,
    "strict": True,
    "is_reg": True,
    "keeps_base": True,
    "kind": "a dog",
    "strength": 0.5,
    "caption": CaptionRule(trigger="x"),
    "clip_augment": FLIP,
    "guidance_type": "targeted",
    "num_variants": 3,
    "scale": 0.5,
    "frames": FrameRule(5, 4),
    "dataset": 1,
}
"""What has no part in them, where nothing is drawn: times of frames, names of samples and pairs count by themselves."""
RULES = [
    MaskRule(),
    MaskRule(alpha=True),
    MaskRule(invert=True),
    MaskRule(min_value=0.1),
]
AUGMENTS = [
    FLIP,
    replace(FLIP, shuffle=True),
    replace(FLIP, replay=False),
    Augment((Step("HorizontalFlip", '{"p": 1.0}'),)),
    Augment((Step("VerticalFlip"),)),
]


@pytest.fixture
def record(tmp_path: Path) -> Callable[[str], Record]:
    """Makes the record of a file with this content."""

    def make(content: str) -> Record:
        (tmp_path / content).write_text(content)
        return Record(tmp_path / content, content, 64, 32)

    return make


def key(item: Item, seed: int = 1, version: int = 0) -> bytes:
    return latent_key(item, seed, version, ENCODER)


def test_every_field_of_a_treatment_is_part_of_a_key_or_has_no_effect(record: Callable[[str], Record]) -> None:
    plain = Treatment()
    assert {field.name for field in fields(Treatment)} == MATTERS.keys() | WITHOUT_EFFECT.keys()
    item = Item(record("one"), (64, 32), 64, plain)
    others = [key(replace(item, treatment=replace(plain, **{name: value}))) for name, value in MATTERS.items()]
    assert len({key(item), *others}) == len(MATTERS) + 1
    for name, value in WITHOUT_EFFECT.items():
        assert key(replace(item, treatment=replace(plain, **{name: value}))) == key(item), name
    scaled = replace(plain, random_scale=True)
    assert key(replace(item, treatment=scaled)) != key(replace(item, treatment=replace(scaled, scale=0.5)))
    for name, values in {"mask": RULES, "augment": AUGMENTS}.items():
        found = {key(replace(item, treatment=replace(plain, **{name: value}))) for value in values}
        assert len(found) == len(values), name


def test_every_field_of_an_item_is_part_of_a_key_or_has_no_effect(record: Callable[[str], Record]) -> None:
    item = Item(record("one"), (64, 32), 64)
    other = record("other")
    matters: dict[str, Any] = {
        "record": other,
        "size": (32, 32),
        "flip_x": True,
        "flip_y": True,
        "mask": other,
        "pair": other,
    }
    without_effect: dict[str, Any] = {
        "resolution": 32,
        "repeat": 1,
        "references": References((other,)),
        "clip_image": other,
    }
    assert {field.name for field in fields(Item)} == matters.keys() | without_effect.keys() | {"treatment"}
    assert len({key(item), *(key(replace(item, **{name: value})) for name, value in matters.items())}) == 7
    assert {key(replace(item, **{name: value})) for name, value in without_effect.items()} == {key(item)}
    # which picture and which mask are not the other way round
    assert key(replace(item, mask=other)) != key(replace(item, record=other, mask=item.record))
    assert key(replace(item, mask=item.record)) != key(item)


def test_versions_seeds_and_names_count_where_something_is_drawn(record: Callable[[str], Record]) -> None:
    plain = Item(record("one"), (64, 32), 64)
    drawn = replace(plain, treatment=Treatment(random_crop=True))
    assert len({key(plain, 1), key(plain, 2), key(plain, 1, 3), key(replace(plain, repeat=1))}) == 1
    found = [key(drawn, 1), key(drawn, 2), key(drawn, 1, 3), key(replace(drawn, repeat=1))]
    assert len({*found, key(replace(drawn, resolution=32))}) == 5
    assert key(plain) != latent_key(plain, 1, 0, bytes(KEY_BYTES))


def test_the_moments_of_a_video_count(record: Callable[[str], Record]) -> None:
    still = Item(record("one"), (64, 32), 64, Treatment(frames=FrameRule(5, 4)))
    clip = replace(still, record=replace(still.record, clip=Clip(2.0, 24.0)))
    rules = [FrameRule(5, 4), FrameRule(9, 4), FrameRule(5, 4, fps=12, shrink=False), FrameRule(5, 4, auto=True)]
    found = {key(replace(clip, treatment=Treatment(frames=rule))) for rule in rules}
    assert len(found | {key(still)}) == 5


def test_files_of_samples_that_cannot_be_read_are_named_once(record: Callable[[str], Record], tmp_path: Path) -> None:
    records, masks = [record(f"one{number}") for number in range(4)], [record(f"mask{number}") for number in range(4)]
    items = DatasetItems(
        ListedRecords(records), [64], lambda *_: (64, 32), Treatment(mask=MaskRule()), masks=masks, flip_x=True
    )
    data = Items([items])
    (tmp_path / "one1").unlink()
    (tmp_path / "mask2").unlink()
    keys = RowKeys(data, 1, ENCODER)
    assert sorted(keys.broken) == [2, 3, 4, 5]
    assert "one1" in str(keys.broken[2]) and "mask2" in str(keys.broken[5])
    lost = sorted(keys.broken)
    keys.leave_out(lost)
    rest = data.without(lost)
    # what is left has moved up, and none of it is broken
    assert not keys.broken and len(keys) == len(rest) == 4
    assert [each.tobytes() for each in keys.at(range(4), 0)] == [key(item) for item in rest]
