"""Batches for the loop: what can be encoded ahead comes from the caches, the rest is encoded when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from toolkit.context import Context
from toolkit.data.cache import RowCache, key_for
from toolkit.data.caption import texts_for
from toolkit.data.datasets import Items
from toolkit.data.encode import LATENTS, encode_images, encode_texts
from toolkit.data.image import BrokenImage, to_pixels
from toolkit.data.items import Item
from toolkit.data.loader import Loader, Position
from toolkit.data.order import plan
from toolkit.data.pixels import item_pixels
from toolkit.data.rng import seed_for
from toolkit.models.conditions import Row, collate
from toolkit.models.family import Family
from toolkit.training.batch import Batch
from toolkit.training.noise import draw

TEXT_VARIANTS = 8
"""How many epochs of differing captions are encoded ahead, where captions vary and text embeddings are cached."""
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""(title, total) -> a progress bar whose block calls `advance(count)`."""


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
    texts: list[str]


class Feed:
    """All samples of a run and how they become batches.

    `images`: the cache of latents, or None to encode every batch anew, as random crops are in any case. `texts`: the
    cache of text rows.
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
    ) -> None:
        self.family, self.context, self.data = family, context, data
        self.images, self.texts, self.tell = images, texts, tell
        self._broken: set[Path] = set()
        self.texts_fixed = all(item.caption.is_fixed for item in data.items)
        self.texts_ahead = self.texts_fixed or keep_texts
        source = family.parts.source
        self._vae = [source.identity(name) for name in family.needs["encode_image"]]
        self._encoders = [
            source.identity(name) for name in family.needs["encode_prompt"] if not name.startswith("tokenizer")
        ]

    # -- encoding ahead -------------------------------------------------------------------------------------------

    def encode(self, more_texts: Sequence[str], negative_texts: Sequence[str], bar: Bar) -> list[str]:
        """Fill the caches, one model part at a time; returns lines to print. Broken pictures are left out."""
        problems = [*self.texts.notices]
        if self.texts_ahead and not self.texts_fixed:
            problems.append(f"captions vary: {TEXT_VARIANTS} versions of each are encoded ahead and take turns")
        if self.images is not None:
            problems += self.images.notices
            cached = [item for item in self.data.items if self.is_cached(item)]
            dropped = self.encode_pictures(cached, self.images, bar, problems)
            self.data = self.data.without(dropped)
            if not self.data.items:
                raise ValueError("no image is left to train on: " + "; ".join(problems))
        self._encode_texts([*more_texts, *self._item_texts()], False, bar)
        self._encode_texts(["", *negative_texts], True, bar)
        return problems

    def encode_pictures(self, items: Sequence[Item], cache: RowCache, bar: Bar, problems: list[str]) -> set[str]:
        """Put the latents of `items` into `cache`; returns the ids of those that cannot be read."""
        missing = [item for item in items if self.image_key(item) not in cache]
        # repeats share a row
        num_rows = len({self.image_key(item) for item in missing})
        if not missing:
            return set()
        dropped: set[str] = set()
        with (
            self.family.parts.using(*self.family.needs["encode_image"]),
            torch.no_grad(),
            bar("encoding images", num_rows) as advance,
        ):
            for number, background in enumerate(self.data.backgrounds):
                dropped |= set(
                    encode_images(
                        [item for item in missing if item.dataset == number],
                        cache,
                        self._to_latents,
                        8,
                        self.image_key,
                        _counting(advance),
                        problems=problems,
                        strict=self.data.strict[number],
                        background=background,
                        seed=self.context.seed,
                    )
                )
        return dropped

    def text_row(self, text: str, negative: bool = False) -> Row:
        """The row of a text that `encode` was told of; "" is the unconditional text."""
        return self.texts.get(self._text_key(text, negative or not text))

    def _encode_texts(self, texts: Sequence[str], negative: bool, bar: Bar) -> None:
        wanted = dict.fromkeys(text for text in texts if negative or text)
        missing = [text for text in wanted if self._text_key(text, negative) not in self.texts]
        if not missing:
            return
        with (
            self.family.parts.using(*self.family.needs["encode_prompt"]),
            torch.no_grad(),
            bar("encoding captions", len(missing)) as advance,
        ):
            encode_texts(
                missing,
                self.texts,
                lambda part: self._to_rows(part, negative),
                16,
                lambda text: self._text_key(text, negative),
                _counting(advance),
            )

    def _item_texts(self) -> list[str]:
        if self.texts_fixed:
            return [text for item in self.data.items for text in texts_for(item.record.caption, item.caption)]
        if not self.texts_ahead:
            return []
        return [item.text(self.context.seed, epoch) for item in self.data.items for epoch in range(TEXT_VARIANTS)]

    def is_cached(self, item: Item) -> bool:
        """Whether the latents of an item are the same every time and kept."""
        return self.images is not None and not item.random_crop

    def image_key(self, item: Item) -> str:
        """Where the latents of an item are in a cache."""
        return key_for(
            image=item.record.sha,
            size=item.size,
            flips=[item.flip_x, item.flip_y],
            box=item.box(self.context.seed),
            background=self.data.backgrounds[item.dataset],
            vae=self._vae,
            dtype=str(self.context.dtype),
        )

    def _text_key(self, text: str, negative: bool) -> str:
        return key_for(text=text, negative=negative, encoders=self._encoders, dtype=str(self.context.dtype))

    def _to_latents(self, pixels: Tensor) -> Tensor:
        return self.family.encode_image(pixels.to(self.context.device)).to(self.context.dtype)

    def _to_rows(self, texts: list[str], negative: bool) -> list[Row]:
        rows = self.family.encode_prompt(texts, negative=negative)
        return [
            {name: value.to(self.context.dtype) if value.is_floating_point() else value for name, value in row.items()}
            for row in rows
        ]

    def _pixels(self, item: Item, epoch: int = 0) -> np.ndarray:
        return item_pixels(item, self.data.backgrounds[item.dataset], self.context.seed, epoch)

    # -- batches --------------------------------------------------------------------------------------------------

    def parts_in_use(self) -> list[str]:
        """Names of the parts that must stay loaded while batches are made."""
        images_ahead = all(self.is_cached(item) for item in self.data.items)
        names = [] if images_ahead else list(self.family.needs["encode_image"])
        return names if self.texts_ahead else [*names, *self.family.needs["encode_prompt"]]

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
        keys = [item.bucket_key for item in self.data.items]
        return plan(keys, self.data.batch_sizes, self.context.seed, epoch, self.context.rank, self.context.world)

    def fetch(self, epoch: int, indices: Sequence[int]) -> Fetched:
        """What worker threads do for a batch: read, decode, draw the random numbers."""
        items = [self.data.items[index] for index in indices]
        cached = [item for item in items if self.is_cached(item)]
        latents = self._stored(cached)
        read, pixels = self._read([item for item in items if not self.is_cached(item)], epoch)
        items = cached + read
        texts = [self._text(item, epoch) for item in items]
        seeds = [seed_for(self.context.seed, epoch, item.id, "noise") for item in items]
        u, noise = draw(seeds, self._latent_shape(self.data.items[indices[0]]))
        rows = [self.text_row(text) for text in texts] if self.texts_ahead else None
        return Fetched(items, u, noise, latents, pixels, rows, texts)

    def _stored(self, items: list[Item]) -> Tensor | None:
        """The cached latents of items, [B, C, h, w]."""
        if self.images is None or not items:
            return None
        return torch.stack([self.images.get(self.image_key(item))[LATENTS] for item in items])

    def _read(self, items: list[Item], epoch: int) -> tuple[list[Item], Tensor | None]:
        """The items whose pixels can be read, and their pixels; the others are named and left out."""
        read: dict[str, np.ndarray] = {}
        for item in items:
            try:
                read[item.id] = self._pixels(item, epoch)
            except BrokenImage as error:
                if self.data.strict[item.dataset]:
                    raise
                if error.path not in self._broken:
                    self._broken.add(error.path)
                    self.tell(f"{error}; left out")
                    if all(other.record.path in self._broken for other in self.data.items):
                        raise ValueError("no image is left to train on") from error
        left = [item for item in items if item.id in read]
        return left, to_pixels(np.stack([read[item.id] for item in left])) if left else None

    def _latent_shape(self, item: Item) -> tuple[int, int, int]:
        facts, (width, height) = self.family.facts, item.size
        return facts.channels, height // facts.stride, width // facts.stride

    @torch.no_grad()
    def finish(self, fetched: Fetched) -> Batch:
        """Encode what is not yet, and move the batch to the device."""
        latents = [] if fetched.latents is None else [fetched.latents]
        if fetched.pixels is not None:
            latents = [*(part.to(self.context.device) for part in latents), self._to_latents(fetched.pixels)]
        rows = fetched.rows or self._encode_now(fetched.texts)
        weight = torch.tensor([item.weight for item in fetched.items])
        return Batch(torch.cat(latents), collate(rows), weight, fetched.u, fetched.noise).to(self.context.device)

    def _encode_now(self, texts: list[str]) -> list[Row]:
        """Rows on the device; the empty text has one already."""
        empty = {name: tensor.to(self.context.device) for name, tensor in self.text_row("").items()}
        return [self._to_rows([text], False)[0] if text else empty for text in texts]

    def _text(self, item: Item, epoch: int) -> str:
        cached_variants = self.texts_ahead and not self.texts_fixed
        return item.text(self.context.seed, epoch % TEXT_VARIANTS if cached_variants else epoch)


def _counting(advance: Callable[[int], None]) -> Callable[[int, int], None]:
    """A callback for (done, total) that moves a bar."""
    seen = 0

    def on_progress(done: int, total: int) -> None:
        nonlocal seen
        advance(done - seen)
        seen = done

    return on_progress
