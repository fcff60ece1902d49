"""The `train.validation_config` section: held-out pictures, as samples and as the hook that measures their loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.context import Context
from toolkit.data.cache.encode import LATENTS
from toolkit.data.cache.rows import RowCache
from toolkit.data.item import Item
from toolkit.data.items import DatasetItems, expand
from toolkit.data.pictures.image import read_size
from toolkit.data.records import Record
from toolkit.models.conditions import Row
from toolkit.models.family import Family
from toolkit.reporting.loggers import Loggers
from toolkit.reporting.progress import Progress
from toolkit.training.feed import Bar, Feed
from toolkit.training.hooks import Validate
from toolkit.training.loop import Hook
from toolkit.training.path import Path as NoisePath
from toolkit.training.text_rows import Prompt
from toolkit.training.texts import TextRow

if TYPE_CHECKING:
    from toolkit.trainer.config import TrainerPlugin


class HeldOut:
    """The held-out pictures of a config; none if it has no such section."""

    def __init__(self, config: TrainerPlugin, family: Family, context: Context) -> None:
        self.section, self.family, self.context = config.train.validation_config, family, context
        entries = self.section.validation_items if self.section else []
        if entries and family.facts.needs_references:
            raise ValueError(
                "train.validation_config: this model makes pictures from reference pictures, which held-out pictures "
                "have none of; remove the section"
            )
        paths = [Path(entry.image_path).expanduser() for entry in entries]
        texts = [entry.prompt.replace("[trigger]", config.trigger_word or "") for entry in entries]
        self.texts = [Prompt(text, negative=not text) for text in texts]
        records = [Record(path, str(path), *read_size(path)) for path in paths]
        resolution = [self.section.resolution] if self.section else []
        self._items: DatasetItems = expand(records, resolution, family.facts.multiple)
        self._cache = RowCache()

    def encode(self, feed: Feed, bar: Bar) -> None:
        """Encode the pictures. Raises ValueError if one cannot be read."""
        problems: list[str] = []
        if feed.encode_pictures(self._items, self._cache, bar, problems):
            raise ValueError("train.validation_config: " + "; ".join(problems))

    def hooks(self, feed: Feed, text_row: TextRow, loggers: Loggers, progress: Progress) -> list[Hook]:
        """The hook, if there is something to measure."""
        if not self._items or self.section is None:
            return []

        def log(step: int, values: Mapping[str, float]) -> None:
            loggers.log(step, values)
            progress.note(f"step {step}: validation loss {values['validation/loss']:.4f}")

        samples = [
            (self._cache.get(feed.image_key(item))[LATENTS].float(), partial(self._row, feed, text_row, item, text))
            for item, text in zip(self._items, self.texts, strict=True)
        ]
        section = self.section
        every = section.validate_every_n_steps
        path = NoisePath.of(self.family.facts)
        return [Validate(self.family, path, self.context, samples, section.validation_sigmas, log, every)]

    def _row(self, feed: Feed, text_row: TextRow, item: Item, text: Prompt) -> Row:
        return {**text_row(text), **feed.picture_rows.numbers(item, 0)}
