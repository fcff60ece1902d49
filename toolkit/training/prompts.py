"""Which prompts the samples of a run come with, so that their rows can be encoded ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from toolkit.data.caption import raw_caption, texts_for
from toolkit.data.item import Item
from toolkit.data.items import DatasetItems, Items
from toolkit.data.treatment import Treatment
from toolkit.training.companions import Companion
from toolkit.training.text_rows import Prompt, TextRows


def item_prompts(data: Items, rows: TextRows, seed: int, companions: Sequence[Companion] = ()) -> Iterator[Prompt]:
    """All of them, those that many samples share once, if that can be told without a look at every sample."""
    shared = not rows.family.facts.prompt_images
    # what comes with every caption is named once, where no pictures make each of its rows another one
    varied = [companion for companion in companions if not (shared and companion.is_constant)]
    if shared:
        yield from constant_prompts(companions)
    numbers, records = data.places()
    for number, items in enumerate(data.datasets):
        places = np.flatnonzero(numbers == number)
        if items.treatment.caption.is_fixed and shared:
            is_used = np.zeros(len(items.records), bool)
            is_used[records[places]] = True
            prompts = _of_captions(items, is_used)
        else:
            prompts = _of_samples((data[place] for place in places.tolist()), rows.of, seed)
        yield from _with_others(prompts, items.treatment, varied)


def constant_prompts(companions: Sequence[Companion]) -> Iterator[Prompt]:
    """The prompts that come with every caption."""
    for companion in companions:
        yield from (Prompt(text, companion.negative or not text) for text in companion.constants())


def text_epoch(item: Item, epoch: int, is_ahead: bool) -> int:
    """Which epoch decides what is random about a caption in this one; `is_ahead`: all of its texts are encoded."""
    # what a fixed rule can give is encoded whole, so that its dropout need not take turns
    takes_turns = is_ahead and not item.treatment.caption.is_fixed
    return epoch % item.treatment.num_variants if takes_turns else epoch


def _with_others(prompts: Iterable[Prompt], treatment: Treatment, companions: Sequence[Companion]) -> Iterator[Prompt]:
    for prompt in prompts:
        yield prompt
        for companion in companions:
            for text in companion.texts(prompt.text, treatment):
                yield replace(prompt, text=text, negative=companion.negative or not text)


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
