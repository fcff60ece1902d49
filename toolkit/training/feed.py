"""Batches for the loop: what can be encoded ahead comes from the caches, the rest is encoded when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toolkit.context import Context
from toolkit.data.cache import RowCache
from toolkit.data.caption import texts_for
from toolkit.data.datasets import Items
from toolkit.data.image import BrokenImage, to_pixels
from toolkit.data.items import Item
from toolkit.data.loader import Loader, Position
from toolkit.data.order import plan
from toolkit.data.pixels import item_pixels, item_references
from toolkit.data.rng import seed_for
from toolkit.models.conditions import Row, collate
from toolkit.models.family import Family
from toolkit.training.bars import Bar
from toolkit.training.batch import Batch
from toolkit.training.noise import draw
from toolkit.training.picture_rows import PictureRows
from toolkit.training.text_rows import Prompt, TextRows

TEXT_VARIANTS = 8
"""How many epochs of differing captions are encoded ahead, where captions vary and text embeddings are cached."""


@dataclass(frozen=True)
class Fetched:
    """A batch as the worker threads leave it: encoded as far as the caches go."""

    items: list[Item]
    u: Tensor
    noise: Tensor
    latents: Tensor | None
    """Of the first items."""
    pixels: Tensor | None
    """Of the others."""
    rows: list[Row] | None
    """Of the texts."""
    texts: list[str]
    conditions: list[Row | list[Image.Image]]
    """Of the references, or the pictures to make them from."""
    numbers: list[Row]


@dataclass(frozen=True)
class Opened:
    """What was read of a sample whose latents are not kept."""

    item: Item
    pixels: np.ndarray
    condition: Row | list[Image.Image]


class Feed:
    """All samples of a run and how they become batches.

    `images`: the cache of latents, or None to encode every batch anew, as random crops are in any case. `texts`: the
    cache of text rows; `conditions`: that of rows made of references, in memory unless it is given. `live_texts`
    leaves captions to the step, as `Batch.texts`, because their encoder is trained. `options` is what else of a
    config changes the rows of texts and references, so that none is served from a cache that was made otherwise.
    """

    def __init__(
        self,
        family: Family,
        context: Context,
        data: Items,
        images: RowCache | None,
        texts: RowCache,
        keep_texts: bool,
        tell: Callable[[str], None] = print,
        *,
        conditions: RowCache | None = None,
        live_texts: bool = False,
        options: str = "",
    ) -> None:
        assert not (live_texts and family.facts.prompt_images)
        self.family, self.context, self.data = family, context, data
        self.tell, self.live_texts = tell, live_texts
        self.text_rows = TextRows(family, context, texts, options)
        kept = RowCache() if conditions is None else conditions
        self.picture_rows = PictureRows(family, context, data, images, kept, options)
        self._broken: set[Path] = set()
        self.texts_fixed = all(item.caption.is_fixed for item in data.items)
        self.texts_ahead = not live_texts and (self.texts_fixed or keep_texts)

    # -- encoding ahead -------------------------------------------------------------------------------------------

    def encode(
        self, more_texts: Sequence[str], negative_texts: Sequence[str], bar: Bar, prompts: Sequence[Prompt] = ()
    ) -> list[str]:
        """Fill the caches, one model part at a time; returns lines to print. Broken pictures are left out.

        With `live_texts`, only the texts and `prompts` that are named here are encoded, no caption.
        """
        rows = self.picture_rows
        problems = [*self.text_rows.cache.notices, *rows.conditions.notices]
        if self.texts_ahead and not self.texts_fixed:
            problems.append(f"captions vary: {TEXT_VARIANTS} versions of each are encoded ahead and take turns")
        if rows.images is not None:
            problems += rows.images.notices
            cached = [item for item in self.data.items if rows.is_cached(item)]
            self._leave_out(rows.encode_latents(cached, rows.images, bar, problems), problems)
        fixed = [item for item in self.data.items if item.references and rows.is_fixed(item)]
        self._leave_out(rows.encode_conditions(fixed, bar, problems), problems)
        named = [Prompt(text, negative=not text) for text in [*more_texts, *([] if self.live_texts else [""])]]
        named += [Prompt(text, negative=True) for text in negative_texts]
        self.text_rows.encode([*named, *prompts, *self._item_prompts()], bar)
        return problems

    def encode_pictures(self, items: Sequence[Item], cache: RowCache, bar: Bar, problems: list[str]) -> set[str]:
        """Put the latents of `items` into `cache`; returns the ids of those that cannot be read."""
        return self.picture_rows.encode_latents(items, cache, bar, problems)

    def text_row(self, text: str, negative: bool = False) -> Row:
        """The row of a text that `encode` was told of; "" is the unconditional text."""
        return self.text_rows.get(Prompt(text, negative or not text))

    def image_key(self, item: Item) -> str:
        """Where the latents of an item are in a cache."""
        return self.picture_rows.image_key(item)

    def _leave_out(self, ids: set[str], problems: list[str]) -> None:
        self.data = self.data.without(ids)
        if not self.data.items:
            raise ValueError("no image is left to train on: " + "; ".join(problems))

    def _item_prompts(self) -> list[Prompt]:
        of, seed = self.text_rows.of, self.context.seed
        if not self.texts_ahead:
            return []
        if self.texts_fixed:
            return [of(item, text) for item in self.data.items for text in texts_for(item.record.caption, item.caption)]
        return [of(item, item.text(seed, epoch)) for item in self.data.items for epoch in range(TEXT_VARIANTS)]

    # -- batches --------------------------------------------------------------------------------------------------

    def parts_in_use(self) -> list[str]:
        """Names of the parts that must stay loaded while batches are made."""
        names: list[str] = []
        if not all(self.picture_rows.is_cached(item) for item in self.data.items):
            names += self.family.needs["encode_image"]
        if not all(self.picture_rows.is_fixed(item) for item in self.data.items):
            names += self.picture_rows.condition_parts
        if not self.texts_ahead:
            names += self.family.needs["encode_prompt"]
        return list(dict.fromkeys(names))

    def batches(
        self, stack: ExitStack, start: Position, num_workers: int, prefetch: int
    ) -> Iterator[tuple[Position, Batch]]:
        """Endless batches on the device from `start`, with the position after each; `stack` ends the threads."""
        stack.enter_context(self.family.parts.using(*self.parts_in_use()))
        loader = Loader(
            self.fetch, self.plan_for, start, num_workers, prefetch, lambda i: str(self.data.items[i].record.path)
        )
        stack.enter_context(loader)
        return ((position, self.finish(fetched)) for position, fetched in loader if fetched.items)

    def plan_for(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch for this rank."""
        keys = [(item.bucket_key, self.picture_rows.signature(item)) for item in self.data.items]
        return plan(keys, self.data.batch_sizes, self.context.seed, epoch, self.context.rank, self.context.world)

    def fetch(self, epoch: int, indices: Sequence[int]) -> Fetched:
        """What worker threads do for a batch: read, decode, draw the random numbers."""
        items, rows = [self.data.items[index] for index in indices], self.picture_rows
        cached = [item for item in items if rows.is_cached(item)]
        opened = self._open([item for item in items if not rows.is_cached(item)], epoch)
        items = cached + [each.item for each in opened]
        texts = [self._text(item, epoch) for item in items]
        seeds = [seed_for(self.context.seed, epoch, item.id, "noise") for item in items]
        u, noise = draw(seeds, rows.latent_shape(self.data.items[indices[0]]))
        return Fetched(
            items,
            u,
            noise,
            rows.stored_latents(cached),
            to_pixels(np.stack([each.pixels for each in opened])) if opened else None,
            self._text_rows(items, texts),
            texts,
            [*(rows.stored_condition(item) for item in cached), *(each.condition for each in opened)],
            [rows.numbers(item, epoch) for item in items],
        )

    def _open(self, items: list[Item], epoch: int) -> list[Opened]:
        """The items whose pixels and references can be read, with them; the others are named and left out."""
        opened: list[Opened] = []
        for item in items:
            background, seed = self.data.backgrounds[item.dataset], self.context.seed
            try:
                pixels = item_pixels(item, background, seed, epoch)
                if self.picture_rows.is_fixed(item):
                    condition: Row | list[Image.Image] = self.picture_rows.stored_condition(item)
                elif item.references.first_frame:
                    condition = [Image.fromarray(pixels[0])]
                else:
                    condition = item_references(item, background, seed, epoch)
                opened.append(Opened(item, pixels, condition))
            except BrokenImage as error:
                self._leave_out_once(item, error)
        return opened

    def _leave_out_once(self, item: Item, error: BrokenImage) -> None:
        """Tell of a sample that cannot be read, once; raise if that may not be, or if no sample is left."""
        if self.data.strict[item.dataset]:
            raise error
        if item.record.path in self._broken:
            return
        self._broken.add(item.record.path)
        self.tell(f"{error}; left out")
        if all(other.record.path in self._broken for other in self.data.items):
            raise ValueError("no image is left to train on") from error

    def _text_rows(self, items: list[Item], texts: list[str]) -> list[Row] | None:
        if self.live_texts:
            return [{} for _ in items]
        if not self.texts_ahead:
            return None
        return [self.text_rows.get(self.text_rows.of(item, text)) for item, text in zip(items, texts, strict=True)]

    @torch.no_grad()
    def finish(self, fetched: Fetched) -> Batch:
        """Encode what is not yet, and move the batch to the device."""
        latents = [] if fetched.latents is None else [fetched.latents]
        if fetched.pixels is not None:
            new = self.picture_rows.latents(fetched.pixels)
            latents = [*(part.to(self.context.device) for part in latents), new]
        rows = fetched.rows or self._encode_now(fetched)
        conditions = self._conditions_now(fetched)
        cond = collate(
            [{**text, **made, **numbers} for text, made, numbers in zip(rows, conditions, fetched.numbers, strict=True)]
        )
        weight = torch.tensor([item.weight for item in fetched.items])
        batch = Batch(torch.cat(latents), cond, weight, fetched.u, fetched.noise, tuple(fetched.texts))
        return batch.to(self.context.device)

    def _encode_now(self, fetched: Fetched) -> list[Row]:
        """Text rows on the device; the empty text has one already."""
        prompts = [self.text_rows.of(item, text) for item, text in zip(fetched.items, fetched.texts, strict=True)]
        return [
            self._on_device(self.text_rows.get(prompt))
            if prompt in self.text_rows
            else self.text_rows.make([prompt])[0]
            for prompt in prompts
        ]

    def _conditions_now(self, fetched: Fetched) -> list[Row]:
        """Rows of the references; on the device, where some are made now."""
        made = {
            item.id: self.picture_rows.condition(found, item)
            for item, found in zip(fetched.items, fetched.conditions, strict=True)
            if isinstance(found, list)
        }
        rows = [made.get(item.id, found) for item, found in zip(fetched.items, fetched.conditions, strict=True)]
        ready = [row for row in rows if not isinstance(row, list)]
        return [self._on_device(row) for row in ready] if made else ready

    def _on_device(self, row: Row) -> Row:
        return {name: tensor.to(self.context.device) for name, tensor in row.items()}

    def _text(self, item: Item, epoch: int) -> str:
        cached_variants = self.texts_ahead and not self.texts_fixed
        return item.text(self.context.seed, epoch % TEXT_VARIANTS if cached_variants else epoch)
