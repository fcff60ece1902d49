"""Which prompts the samples of a run come with, so that their rows can be encoded ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from toolkit.data.caption import raw_caption, texts_for
from toolkit.data.item import Item
from toolkit.data.items import DatasetItems, Items
from toolkit.training.text_rows import Prompt, TextRows


def item_prompts(data: Items, rows: TextRows, seed: int) -> Iterator[Prompt]:
    """All of them, those that many samples share once, if that can be told without a look at every sample."""
    numbers, records = data.places()
    for number, items in enumerate(data.datasets):
        places = np.flatnonzero(numbers == number)
        if items.treatment.caption.is_fixed and not rows.family.facts.prompt_images:
            is_used = np.zeros(len(items.records), bool)
            is_used[records[places]] = True
            yield from _of_captions(items, is_used)
        else:
            yield from _of_samples((data[place] for place in places.tolist()), rows.of, seed)


def text_epoch(item: Item, epoch: int, is_ahead: bool) -> int:
    """Which epoch decides what is random about a caption in this one; `is_ahead`: all of its texts are encoded."""
    # what a fixed rule can give is encoded whole, so that its dropout need not take turns
    takes_turns = is_ahead and not item.treatment.caption.is_fixed
    return epoch % item.treatment.num_variants if takes_turns else epoch


def _of_captions(items: DatasetItems, is_used: np.ndarray) -> Iterator[Prompt]:
    rule = items.treatment.caption
    if rule.dropout:
        yield Prompt("", negative=True)
    undropped = replace(rule, dropout=0.0)
    found = items.records.captions(None if is_used.all() else np.flatnonzero(is_used))
    for captions in found if rule.is_read else ((None, None),):
        yield from (Prompt(text, negative=not text) for text in texts_for(raw_caption(*captions, rule), undropped))


def _of_samples(items: Iterable[Item], of: Callable[[Item, str], Prompt], seed: int) -> Iterator[Prompt]:
    for item in items:
        rule = item.treatment.caption
        if rule.is_fixed:
            texts: Iterable[str] = texts_for(item.raw_caption, rule)
        else:
            texts = (item.text(seed, epoch) for epoch in range(item.treatment.num_variants))
        yield from (of(item, text) for text in texts)
