"""Other texts for the same samples: a step asks the network about them too, beside the captions.

They are encoded ahead with the captions (`toolkit/training/prompts.py`) and reach the step as `Batch.others`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from toolkit.data.item import Item
from toolkit.data.rng import stream
from toolkit.data.treatment import PLAIN, Treatment
from toolkit.models.family import Family
from toolkit.training.batch import Batch
from toolkit.training.texts import with_texts

Texts = Callable[[str, Treatment], Sequence[str]]


@dataclass(frozen=True)
class Companion:
    """A kind of other texts."""

    name: str
    texts: Texts
    """(caption, treatment of its data set) -> the texts of which one is drawn for every sample and epoch."""
    negative: bool = False
    """Whether they are negative prompts; the empty text is one in any case."""
    is_constant: bool = False
    """Whether they are the same for all captions."""
    drawn_with: str = ""
    """Companions with the same word here draw the texts of the same place."""

    def draw(self, caption: str, item: Item, seed: int, epoch: int) -> str:
        """The text that comes with a caption."""
        found = self.texts(caption, item.treatment)
        if len(found) == 1:
            return found[0]
        return found[stream(seed, epoch, item.id, self.drawn_with or self.name).randrange(len(found))]

    def constants(self) -> Sequence[str]:
        """The texts that come with any caption; none if they depend on it."""
        return self.texts("", PLAIN) if self.is_constant else ()

    def batch(self, family: Family, batch: Batch) -> Batch:
        """The samples with these texts, encoded here if their encoder is trained."""
        if self.name in batch.others:
            return batch.with_other(self.name)
        return with_texts(family, replace(batch, texts=batch.other_texts[self.name]), self.negative)


def same_for_all(name: str, texts: Sequence[str], negative: bool = True) -> Companion:
    """The same texts beside all captions."""
    return Companion(name, lambda caption, treatment: texts, negative, is_constant=True)


def in_class(name: str, kind: str) -> Companion:
    """Captions with what the trigger word is a kind of in its place, unless their data set says what that is."""

    def texts(caption: str, treatment: Treatment) -> Sequence[str]:
        return (replace_word(caption, treatment.caption.trigger, treatment.kind or kind),)

    return Companion(name, texts)


def replace_word(text: str, word: str, other: str) -> str:
    """`other` wherever `word` stands by itself, as "cat" does not in "category"."""
    return _word(word).sub(lambda _: other, text) if word else text


def has_word(text: str, word: str) -> bool:
    """Whether `word` stands by itself anywhere in the text."""
    return bool(word) and _word(word).search(text) is not None


@cache
def _word(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
