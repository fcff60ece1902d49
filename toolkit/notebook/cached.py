"""A data set as a model sees it: latents and text conditions, from the caches that training uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from toolkit.config.direct import make_section
from toolkit.config.plugins import load_plugin
from toolkit.config.sections.dataset import DatasetSection
from toolkit.context import Context, make_context
from toolkit.data.cache.rows import RowCache
from toolkit.data.datasets import read_datasets
from toolkit.data.items import Items
from toolkit.data.loader import Position
from toolkit.models.family import Family
from toolkit.reporting.progress import bar
from toolkit.training.batch import Batch
from toolkit.training.feed import Feed


def build_family(
    model: str, arch: str, device: str, dtype: str, seed: int, root: Path, keys: Mapping[str, Any]
) -> tuple[Family, Context]:
    """A model family with its parts unloaded, and where it computes. ValueError names what is wrong with the keys."""
    plugin = make_section(load_plugin("models", arch), {"arch": arch, "name_or_path": model, **keys})
    context = replace(make_context(device, dtype, seed), cache=root)
    return plugin.build(context, checkpointing=False, bypass_guidance=False), context


class CachedDataset:
    """Latents and text conditions of every sample, encoded."""

    def __init__(self, section: DatasetSection, family: Family, context: Context, root: Path) -> None:
        """Encode what the cache in `root` lacks. Raises ValueError if the data set does not fit the model."""
        self.section, self.family, self.context, self.root = section, family, context, root
        self.problems: list[str] = []
        self._feeds: dict[int, Feed] = {}
        self.items: Items = self._feed(1).data

    def __len__(self) -> int:
        return len(self.items)

    def dataloader(self, batch_size: int, epoch: int = 0, num_workers: int = 2) -> Iterator[Batch]:
        """The batches of one epoch: `latents` [B, C, (f,) h, w], `cond`, `noise`, `u`, on the device as float32."""
        feed = self._feed(batch_size)
        with ExitStack() as stack:
            batches = feed.batches(stack, Position(epoch, 0), num_workers, 2)
            yield from (batch for _, batch in islice(batches, len(feed.plan_for(epoch))))

    def _read(self, batch_size: int) -> Items:
        section, facts = self.section, self.family.facts
        return read_datasets(
            [section],
            facts.multiple,
            batch_size,
            section.trigger_word,
            taken=facts,
            index=self.root / "index",
            cache=self.root,
        )

    def _feed(self, batch_size: int) -> Feed:
        """The samples in batches of this size, all encoded; read once, however many epochs are asked for."""
        if batch_size not in self._feeds:
            data = self._read(batch_size)
            images, texts = RowCache(self.root / "latents"), RowCache(self.root / "text")
            conditions = RowCache(self.root / "conditions")
            feed = Feed(self.family, self.context, data, images, texts, keep_texts=True, conditions=conditions)
            said = [*data.problems, *feed.encode(bar)]
            self.problems += [line for line in said if line not in self.problems]
            self._feeds[batch_size] = feed
        return self._feeds[batch_size]
