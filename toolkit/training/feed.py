"""Batches for the loop: what can be encoded ahead comes from the caches, the rest is encoded when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toolkit.context import Context
from toolkit.data.cache.encode import cell_weights
from toolkit.data.cache.rows import RowCache
from toolkit.data.item import Item
from toolkit.data.items import Items
from toolkit.data.loader import Loader, Position
from toolkit.data.pictures.decoding import Decoded
from toolkit.data.rng import seed_for
from toolkit.data.workers import Workers
from toolkit.models.conditions import Conditions, Row, collate, pinned
from toolkit.models.family import Family
from toolkit.training.bars import Bar
from toolkit.training.batch import Batch
from toolkit.training.digests import Digests
from toolkit.training.fetched import Fetched, stack_masks
from toolkit.training.noise import draw
from toolkit.training.picture_rows import PictureRows
from toolkit.training.prefetch import Prefetch
from toolkit.training.prompts import item_prompts, text_epoch
from toolkit.training.reader import Reader
from toolkit.training.text_rows import Prompt, TextRows
from toolkit.training.turns import Order, Turn

__all__ = ["Bar", "Feed"]


class Feed:
    """All samples of a run and how they become batches.

    `images`: the cache of latents, or None to encode every batch anew. `texts`: the cache of text rows; `conditions`:
    that of rows made of references, in memory unless it is given. `live_texts` leaves captions to the step, as
    `Batch.texts`, because their encoder is trained. `options` is what else of a config changes the rows of texts and
    references, so that none is served from a cache that was made otherwise. `workers` read pictures.
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
        workers: Workers | None = None,
    ) -> None:
        assert not (live_texts and family.facts.prompt_images)
        self.family, self.context, self.data = family, context, data
        self.tell, self.live_texts = tell, live_texts
        self.workers = Workers() if workers is None else workers
        digests = Digests()
        self.text_rows = TextRows(family, context, texts, options, digests)
        kept = RowCache() if conditions is None else conditions
        self.picture_rows = PictureRows(family, context, data, images, kept, self.workers, options, digests)
        self._reader = Reader(data, context.seed, self.workers, lambda line: self.tell(line))
        texts_fixed = all(items.treatment.caption.is_fixed for items in data.datasets)
        self.texts_ahead = not live_texts and (texts_fixed or keep_texts)

    # -- encoding ahead -------------------------------------------------------------------------------------------

    def encode(
        self, more_texts: Sequence[str], negative_texts: Sequence[str], bar: Bar, prompts: Sequence[Prompt] = ()
    ) -> list[str]:
        """Fill the caches, one model part at a time; returns lines to print. Broken pictures are left out.

        With `live_texts`, only the texts and `prompts` that are named here are encoded, no caption.
        """
        rows = self.picture_rows
        problems = [*self.text_rows.cache.notices, *rows.conditions.notices, *self._turns_taken()]
        if rows.images is not None:
            problems += rows.images.notices
            self._leave_out(rows.encode_latents(bar, problems), problems)
        self._leave_out(rows.encode_conditions(bar, problems), problems)
        named = [Prompt(text, negative=not text) for text in [*more_texts, *([] if self.live_texts else [""])]]
        named += [Prompt(text, negative=True) for text in negative_texts]
        of_items = item_prompts(self.data, self.text_rows, self.context.seed) if self.texts_ahead else ()
        self.text_rows.encode(chain(named, prompts, of_items), bar, problems)
        return problems

    def encode_pictures(self, items: Sequence[Item], cache: RowCache, bar: Bar, problems: list[str]) -> list[int]:
        """Put the latents of `items` into `cache`; returns the places of those that cannot be read."""
        return self.picture_rows.encode_items(items, cache, bar, problems)

    def text_row(self, text: str, negative: bool = False) -> Row:
        """The row of a text that `encode` was told of; "" is the unconditional text."""
        return self.text_rows.get(Prompt(text, negative or not text))

    def image_key(self, item: Item, epoch: int = 0) -> bytes:
        """Where the latents of an item are in a cache."""
        return self.picture_rows.image_key(item, epoch)

    def _turns_taken(self) -> list[str]:
        """Says where only so many versions of something random are encoded."""
        lines, ahead = [], self.picture_rows.images is not None
        for items in self.data.datasets:
            treatment = items.treatment
            texts = self.texts_ahead and not treatment.caption.is_fixed
            kinds = " and ".join(["pictures"] * (ahead and treatment.is_random) + ["captions"] * texts)
            if kinds:
                lines.append(
                    f"{kinds} vary: {treatment.num_variants} versions of each are encoded ahead and take turns"
                )
        return list(dict.fromkeys(lines))

    def _leave_out(self, places: Sequence[int], problems: list[str]) -> None:
        if places:
            self.data = self.data.without(places)
            self.picture_rows.leave_out(self.data, places)
            self._reader.data = self.data
        if not self.data:
            raise ValueError("no image is left to train on: " + "; ".join(problems))

    # -- batches --------------------------------------------------------------------------------------------------

    def plan_for(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch for this rank, as places in `data`."""
        return [turn.indices for turn in self._order().turns(epoch)]

    def _order(self) -> Order:
        rows = self.picture_rows
        return Order(self.data, self.context, rows.signature if rows.has_references else None)

    def parts_in_use(self) -> list[str]:
        """Names of the parts that must stay loaded while batches are made."""
        names: list[str] = []
        rows = self.picture_rows
        if rows.images is None:
            names += self.family.needs["encode_image"]
        if rows.has_references and not all(rows.is_fixed(item) for item in self.data):
            names += rows.condition_parts
        if not self.texts_ahead:
            names += self.family.needs["encode_prompt"]
        return list(dict.fromkeys(names))

    def batches(
        self, stack: ExitStack, start: Position, num_workers: int, prefetch: int
    ) -> Iterator[tuple[Position, Batch]]:
        """Endless batches on the device from `start`, with the position after each; `stack` ends the threads.

        A batch of which nothing is left for this rank (its part of a short batch is empty, or no file of it can be
        read) is passed over: of several ranks each takes as many steps as the others, so none waits for another, but
        their positions may then differ.
        """
        stack.enter_context(self.family.parts.using(*self.parts_in_use()))
        loader: Loader[Turn, Fetched] = Loader(
            lambda _, turn: self.fetch(turn.epoch, turn.indices),
            self._order().turns,
            start,
            num_workers,
            prefetch,
            lambda turn: ", ".join(str(self.data[place].record.path) for place in turn.indices.tolist()),
        )
        stack.enter_context(loader)
        return Prefetch(loader, self.finish, self.context.device)

    def fetch(self, epoch: int, indices: Sequence[int] | np.ndarray) -> Fetched:
        """What threads do for a batch: read, or have it read; draw the random numbers."""
        places, rows = np.asarray(indices, np.int64), self.picture_rows
        items = [self.data[place] for place in places.tolist()]
        read: list[Decoded] = []
        if rows.images is None:
            made = self._reader.read(items, epoch, lambda item: not rows.is_fixed(item))
            found = [(item, each) for item, each in zip(items, made, strict=True) if each]
            items, read = [item for item, _ in found], [each for _, each in found]
        shape = rows.latent_shape(items[0]) if items else ()
        texts = [item.text(self.context.seed, text_epoch(item, epoch, self.texts_ahead)) for item in items]
        text_rows, numbers = self._text_rows(items, texts), [rows.numbers(item, epoch) for item in items]
        conditions: list[Row | list[Image.Image]] = [
            rows.stored_condition(item, epoch) if rows.is_fixed(item) else each.pictures
            for item, each in zip(items, read or [Decoded()] * len(items), strict=True)
        ]
        latents, masks, pairs = self._stored(items, places, epoch) if items and not read else (None, [], [])
        if read:
            masks = [None if each.mask is None else _weights(each, shape) for each in read]
            pairs = [each.pair for each in read if each.pair is not None]
        u, noise = draw([seed_for(self.context.seed, epoch, item.id, "noise") for item in items], shape)
        pixels = np.stack([each.pixels for each in read if each.pixels is not None]) if read else None
        cond = _collated(text_rows, conditions, numbers) if items and text_rows is not None else None
        if self.context.device.type == "cuda":
            noise, cond = pinned(noise), cond and cond.pin()
        return Fetched(items, u, noise, latents, pixels, masks, pairs, text_rows, texts, conditions, numbers, cond)

    def _stored(
        self, items: list[Item], places: np.ndarray, epoch: int
    ) -> tuple[Tensor, list[Tensor | None], list[Tensor | np.ndarray]]:
        """Latents, masks and pairs from the cache."""
        rows = self.picture_rows
        keys = rows.keys.at(places, epoch)
        if not any(item.treatment.mask or item.pair for item in items):
            return rows.stored_latents(keys), [None] * len(items), []
        extras = rows.stored_extras(keys)
        return rows.stored_latents(keys), [mask for mask, _ in extras], [pair for _, pair in extras if pair is not None]

    def _text_rows(self, items: list[Item], texts: list[str]) -> list[Row] | None:
        if self.live_texts:
            return [{} for _ in items]
        if not self.texts_ahead:
            return None
        return self.text_rows.rows([self.text_rows.of(item, text) for item, text in zip(items, texts, strict=True)])

    @torch.no_grad()
    def finish(self, fetched: Fetched) -> Batch | None:
        """Encode what is not yet, and move the batch to the device; None if nothing of it could be read."""
        if not fetched.items:
            return None
        rows = self.picture_rows
        latents = fetched.latents
        if latents is None:
            assert fetched.pixels is not None
            latents = rows.latents(fetched.pixels)
        cond = fetched.cond
        if cond is None:
            texts = fetched.rows or self._encode_now(fetched)
            made = zip(texts, self._conditions_now(fetched), fetched.numbers, strict=True)
            cond = collate([{**text, **condition, **numbers} for text, condition, numbers in made])
        weight = torch.tensor([item.treatment.weight for item in fetched.items])
        mask, pairs = stack_masks(fetched.masks, latents), self._pairs(fetched.pairs)
        batch = Batch(latents, cond, weight, fetched.u, fetched.noise, tuple(fetched.texts), mask, pairs)
        return batch.to(self.context.device)

    def _pairs(self, pairs: list[Tensor | np.ndarray]) -> Tensor | None:
        if not pairs:
            return None
        arrays = [pair for pair in pairs if isinstance(pair, np.ndarray)]
        if arrays:
            return self.picture_rows.latents(np.stack(arrays))
        return torch.stack([pair for pair in pairs if isinstance(pair, Tensor)])

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
        found = list(zip(fetched.items, fetched.conditions, strict=True))
        rows = [self.picture_rows.condition(row, item) if isinstance(row, list) else row for item, row in found]
        return [self._on_device(row) for row in rows] if any(isinstance(row, list) for _, row in found) else rows

    def _on_device(self, row: Row) -> Row:
        return {name: tensor.to(self.context.device) for name, tensor in row.items()}


def _weights(decoded: Decoded, shape: Sequence[int]) -> Tensor:
    assert decoded.mask is not None
    return torch.from_numpy(cell_weights(decoded.mask, shape[-2:], decoded.min_value))


def _collated(texts: list[Row], conditions: Sequence[Row | list[Image.Image]], numbers: list[Row]) -> Conditions | None:
    """The conditions of a batch; None while some are still pictures."""
    ready = [row for row in conditions if not isinstance(row, list)]
    if len(ready) < len(conditions):
        return None
    return collate([{**text, **made, **some} for text, made, some in zip(texts, ready, numbers, strict=True)])
