"""Which texts are encoded ahead: all that can come up, those that many samples share once."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from extensions_built_in.flux.config import Flux
from toolkit.context import Context
from toolkit.data.cache.rows import RowCache
from toolkit.data.caption import CaptionRule
from toolkit.data.items import DatasetItems, Items
from toolkit.data.records import ListedRecords, Record
from toolkit.data.treatment import Treatment
from toolkit.models.family import Family
from toolkit.training.prompts import item_prompts, text_epoch
from toolkit.training.text_rows import TextRows

RULES = {
    "plain": CaptionRule(),
    "trigger": CaptionRule(trigger="ohwx", dropout=0.5),
    "replaced": CaptionRule(trigger="ohwx", replacements=(("cat", "[trigger] dog"),)),
    "short": CaptionRule(is_short=True, default_caption="a thing"),
    "prepended": CaptionRule(is_prepended=True, default_caption="a thing"),
    "not read": CaptionRule(trigger="ohwx", is_read=False),
    "regularization": CaptionRule(trigger="ohwx", is_reg=True),
    "shuffled": CaptionRule(shuffle=True, dropout=0.5),
}
CAPTIONS = [("a cat, large,  blue", "cat"), ("a house", None), (None, "short"), ("a cat, large,  blue", None), ("", "")]


@pytest.fixture
def rows(tiny_flux: Path, cpu: Context) -> TextRows:
    model = Flux.model_validate({"arch": "flux", "name_or_path": str(tiny_flux)})
    family: Family = model.build(cpu, checkpointing=False, bypass_guidance=False)
    return TextRows(family, cpu, RowCache())


def dataset(rule: CaptionRule, number: int = 0, captions: Any = CAPTIONS) -> DatasetItems:
    records = [
        Record(Path(f"{place}.png"), f"{place}.png", 32, 32, caption, short)
        for place, (caption, short) in enumerate(captions)
    ]
    treatment = Treatment(dataset=number, caption=rule, num_variants=4)
    return DatasetItems(ListedRecords(records), [32], lambda width, height, _: (width, height), treatment, flip_x=True)


@pytest.mark.parametrize("name", RULES)
def test_all_texts_that_come_up_are_asked_for_and_no_other(rows: TextRows, name: str) -> None:
    data = Items([dataset(RULES[name])])
    asked = {(prompt.text, prompt.negative) for prompt in item_prompts(data, rows, 42)}
    texts = {item.text(42, text_epoch(item, epoch, True)) for item in data for epoch in range(40)}
    assert asked == {(text, not text) for text in texts}


def test_several_data_sets_and_samples_that_are_left_out(rows: TextRows) -> None:
    data = Items([dataset(RULES["trigger"], 0), dataset(RULES["replaced"], 1), dataset(RULES["shuffled"], 2)])
    rest = data.without([0, 1, 6, 7, 12, 13, 20, 21])
    for some in (data, rest):
        asked = {prompt.text for prompt in item_prompts(some, rows, 42)}
        assert asked == {item.text(42, text_epoch(item, epoch, True)) for item in some for epoch in range(40)}


def test_captions_that_are_shared_are_looked_at_once(rows: TextRows) -> None:
    data = Items([dataset(CaptionRule(dropout=0.1), captions=[("a cat", None), ("a dog", None)] * 500)])
    assert [prompt.text for prompt in item_prompts(data, rows, 42)] == ["", "a cat", "a dog"]


def test_only_captions_that_vary_take_turns() -> None:
    data = Items([dataset(RULES["trigger"]), dataset(RULES["shuffled"], 1)])
    assert [text_epoch(data[0], epoch, True) for epoch in (3, 4, 9)] == [3, 4, 9]
    assert [text_epoch(data[-1], epoch, True) for epoch in (3, 4, 9)] == [3, 0, 1]
    assert [text_epoch(data[-1], epoch, False) for epoch in (3, 4, 9)] == [3, 4, 9]


def test_no_bar_is_shown_where_nothing_is_missing(rows: TextRows) -> None:
    data = Items([dataset(RULES["plain"])])
    titles: list[str] = []

    def bar(title: str, total: int) -> Any:
        titles.append(f"{title}: {total}")
        return nullcontext(lambda count: None)

    for _ in range(2):
        rows.encode(item_prompts(data, rows, 42), bar)
    assert titles == ["encoding captions: 3"]
