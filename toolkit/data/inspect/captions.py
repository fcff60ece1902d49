"""The captions of a data set: which are missing, how long they are, which words they share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from toolkit.data.caption import CaptionRule, caption_for, raw_caption, split_tokens
from toolkit.data.inspect.facts import CaptionFacts, Count, SameCaption, Spread, TokenFacts, TriggerFacts
from toolkit.data.inspect.files import FolderFiles
from toolkit.data.inspect.pictures import Gallery
from toolkit.data.inspect.tokens import BATCH, TextLength

COMMON = 30
# words that say nothing about pictures
FILLERS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by for from has have he her his in is it its of on or she that the their there they "
        "this to was were which with",
    )
)


def trained_text(raw: str | None, rule: CaptionRule) -> str:
    """The whole text of a sample: nothing is left out, shuffled or added at random."""
    return caption_for(raw, _calm(rule), Random(0))


def caption_facts(gallery: Gallery, folders: Sequence[FolderFiles], lengths: Sequence[TextLength]) -> CaptionFacts:
    """All about the captions."""
    raw = [_raw(gallery, index) for index in range(len(gallery))]
    names: dict[str, list[int]] = {}
    for index, caption in enumerate(raw):
        if caption:
            names.setdefault(caption, []).append(index)
    written = [caption for caption in raw if caption]
    return CaptionFacts(
        present=len(written),
        missing=tuple(name for folder in folders for name in folder.missing_captions),
        empty=tuple(name for folder in folders for name in folder.empty_captions),
        unreadable=tuple(broken for folder in folders for broken in folder.broken_captions),
        characters=Spread.of([len(caption) for caption in written]),
        words=Spread.of([len(caption.split()) for caption in written]),
        tokens=tuple(_tokens(gallery, raw, length) for length in lengths),
        triggers=_triggers(gallery, raw),
        common_phrases=_common(_phrases(caption) for caption in written),
        common_words=_common(_words(caption) for caption in written),
        duplicates=tuple(
            SameCaption(text, tuple(map(gallery.name, group)))
            for text, group in sorted(names.items(), key=lambda found: -len(found[1]))
            if len(group) > 1
        ),
    )


def _raw(gallery: Gallery, index: int) -> str | None:
    record = gallery.record(index)
    return raw_caption(record.caption, record.short_caption, gallery.datasets[gallery.dataset(index)].treatment.caption)


def _calm(rule: CaptionRule) -> CaptionRule:
    return replace(rule, dropout=0.0, token_dropout=0.0, shuffle=False, random_triggers=())


def _tokens(gallery: Gallery, raw: Sequence[str | None], length: TextLength) -> TokenFacts:
    """Lengths of the texts as one text encoder gets them."""
    rules = [_calm(dataset.treatment.caption) for dataset in gallery.datasets]
    texts = [caption_for(caption, rules[gallery.dataset(index)], Random(0)) for index, caption in enumerate(raw)]
    counts = [n for start in range(0, len(texts), BATCH) for n in length.count(texts[start : start + BATCH])]
    limit = length.limit
    too_long = [index for index, count in enumerate(counts) if limit is not None and count > limit]
    return TokenFacts(length.name, limit, Spread.of(counts), tuple(map(gallery.name, too_long)))


def _triggers(gallery: Gallery, raw: Sequence[str | None]) -> tuple[TriggerFacts, ...]:
    """How often each trigger is written; a caption that lacks it is one that the rule of training puts it before."""
    found: dict[str, list[int]] = {}
    for index, caption in enumerate(raw):
        rule = _calm(gallery.datasets[gallery.dataset(index)].treatment.caption)
        if not rule.trigger:
            continue
        plain = caption_for(caption, replace(rule, is_reg=True), Random(0))
        is_without = plain != caption_for(caption, replace(rule, is_reg=False), Random(0))
        found.setdefault(rule.trigger, [0, 0])[is_without] += 1
    return tuple(TriggerFacts(word, *counts) for word, counts in found.items())


def _phrases(caption: str) -> set[str]:
    """The parts between commas, each once; the comma of a number separates nothing."""
    return {part.lower() for part in split_tokens(caption)}


def _words(caption: str) -> set[str]:
    return {word for word in re.findall(r"[^\W_]+(?:['-][^\W_]+)*", caption.lower()) if word not in FILLERS}


def _common(found: Iterable[set[str]]) -> tuple[Count, ...]:
    """What several captions have, most frequent first, then by the alphabet."""
    counts = Counter(text for texts in found for text in texts)
    ranked = sorted((entry for entry in counts.items() if entry[1] > 1), key=lambda entry: (-entry[1], entry[0]))
    return tuple(Count(text, count) for text, count in ranked[:COMMON])
