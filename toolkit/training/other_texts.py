"""The other texts of a batch and their conditions: what the feed does for companions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from toolkit.data.item import Item
from toolkit.models.conditions import Conditions, Row, collate
from toolkit.training.companions import Companion
from toolkit.training.text_rows import Prompt, TextRows

Rows = Callable[[list[Prompt]], list[Row]]
"""Prompts -> their rows: stored ones, or encoded now."""


class OtherTexts:
    """Draws and collects what comes with every caption."""

    def __init__(self, companions: Sequence[Companion], text_rows: TextRows, seed: int) -> None:
        self.companions = companions
        self._text_rows, self._seed = text_rows, seed

    def draw(self, items: Sequence[Item], texts: Sequence[str], epoch: int) -> dict[str, tuple[str, ...]]:
        """The texts of some samples in an epoch, by the name of their companion; `texts` are the captions."""
        pairs = list(zip(texts, items, strict=True))
        return {
            companion.name: tuple(companion.draw(text, item, self._seed, epoch) for text, item in pairs)
            for companion in self.companions
        }

    def conditions(
        self, items: Sequence[Item], texts: Mapping[str, Sequence[str]], rows: Rows
    ) -> dict[str, Conditions]:
        """The conditions of texts that were drawn."""
        return {
            companion.name: collate(rows(self._prompts(items, texts[companion.name], companion.negative)))
            for companion in self.companions
        }

    def _prompts(self, items: Sequence[Item], texts: Sequence[str], negative: bool) -> list[Prompt]:
        return [self._text_rows.of(item, text, negative) for item, text in zip(items, texts, strict=True)]
