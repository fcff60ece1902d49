"""Samples on their way to a batch: read and drawn by threads, put together and encoded to the end on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toolkit.context import Context
from toolkit.data.cache.encode import cell_weights
from toolkit.data.item import Item
from toolkit.data.items import Items
from toolkit.data.pictures.decoding import Decoded
from toolkit.data.rng import seed_for
from toolkit.data.workers import Workers
from toolkit.models.conditions import Conditions, Row, collate, pinned
from toolkit.training.batch import Batch
from toolkit.training.draws import Draws
from toolkit.training.fetched import Fetched, stack_masks
from toolkit.training.other_texts import OtherTexts
from toolkit.training.picture_rows import PictureRows
from toolkit.training.prompts import text_epoch
from toolkit.training.reader import Reader
from toolkit.training.text_rows import Prompt, TextRows


class Assembly:
    """What the feed does for one batch; `texts_ahead` and `live_texts` say whose work its texts are."""

    def __init__(
        self,
        context: Context,
        data: Items,
        pictures: PictureRows,
        texts: TextRows,
        other_texts: OtherTexts,
        draws: Draws,
        workers: Workers,
        tell: Callable[[str], None],
        *,
        texts_ahead: bool,
        live_texts: bool,
    ) -> None:
        """`tell` hears of files that cannot be read."""
        self._context, self._data, self.draws = context, data, draws
        self._pictures, self._texts, self._other_texts = pictures, texts, other_texts
        self._texts_ahead, self._live_texts = texts_ahead, live_texts
        self._reader = Reader(data, context.seed, workers, tell)

    def shrink(self, data: Items) -> None:
        """Go on with what is left of the data."""
        self._data = self._reader.data = data

    def fetch(self, epoch: int, indices: Sequence[int] | np.ndarray) -> Fetched:
        """What threads do for a batch: read, or have it read; draw the random numbers."""
        places, rows = np.asarray(indices, np.int64), self._pictures
        items = [self._data[place] for place in places.tolist()]
        read: list[Decoded] = []
        if rows.images is None:
            made = self._reader.read(items, epoch, lambda item: not rows.is_fixed(item))
            found = [(item, each) for item, each in zip(items, made, strict=True) if each]
            items, read = [item for item, _ in found], [each for _, each in found]
        shape = rows.latent_shape(items[0]) if items else ()
        texts = [item.text(self._context.seed, text_epoch(item, epoch, self._texts_ahead)) for item in items]
        text_rows, numbers = self._text_rows(items, texts), [rows.numbers(item, epoch) for item in items]
        conditions: list[Row | list[Image.Image]] = [
            rows.stored_condition(item, epoch) if rows.is_fixed(item) else each.pictures
            for item, each in zip(items, read or [Decoded()] * len(items), strict=True)
        ]
        latents, masks, pairs = self._stored(items, places, epoch) if items and not read else (None, [], [])
        if read:
            masks = [None if each.mask is None else _weights(each, shape) for each in read]
            pairs = [each.pair for each in read if each.pair is not None]
        u, noise, draws = self.draws.make(
            lambda epoch, purpose: [seed_for(self._context.seed, epoch, item.id, purpose) for item in items],
            epoch,
            shape,
        )
        pixels = np.stack([each.pixels for each in read if each.pixels is not None]) if read else None
        cond = _collated(text_rows, conditions, numbers) if items and text_rows is not None else None
        other_texts = self._other_texts.draw(items, texts, epoch)
        others = self._others(items, other_texts)
        if self._context.device.type == "cuda":
            noise, cond = pinned(noise), cond and cond.pin()
            others = others and {name: each.pin() for name, each in others.items()}
            draws = {name: pinned(more) for name, more in draws.items()}
        return Fetched(
            items,
            u,
            noise,
            draws,
            latents,
            pixels,
            masks,
            pairs,
            text_rows,
            texts,
            conditions,
            numbers,
            cond,
            other_texts,
            others,
        )

    def _stored(
        self, items: list[Item], places: np.ndarray, epoch: int
    ) -> tuple[Tensor, list[Tensor | None], list[Tensor | np.ndarray]]:
        """Latents, masks and pairs from the cache."""
        rows = self._pictures
        keys = rows.keys.at(places, epoch)
        if not any(item.treatment.mask or item.pair for item in items):
            return rows.stored_latents(keys), [None] * len(items), []
        extras = rows.stored_extras(keys)
        return rows.stored_latents(keys), [mask for mask, _ in extras], [pair for _, pair in extras if pair is not None]

    def _others(self, items: list[Item], texts: Mapping[str, Sequence[str]]) -> dict[str, Conditions] | None:
        """Conditions of other texts; none if the step encodes them, None if they are encoded for every batch."""
        if self._live_texts or not items:
            return {}
        return self._other_texts.conditions(items, texts, self._texts.rows) if self._texts_ahead else None

    def _text_rows(self, items: list[Item], texts: list[str]) -> list[Row] | None:
        if self._live_texts:
            return [{} for _ in items]
        if not self._texts_ahead:
            return None
        return self._texts.rows([self._texts.of(item, text) for item, text in zip(items, texts, strict=True)])

    @torch.no_grad()
    def finish(self, fetched: Fetched) -> Batch | None:
        """Encode what is not yet, and move the batch to the device; None if nothing of it could be read."""
        if not fetched.items:
            return None
        rows = self._pictures
        latents = fetched.latents
        if latents is None:
            assert fetched.pixels is not None
            latents = rows.latents(fetched.pixels)
        cond = fetched.cond
        if cond is None:
            texts = fetched.rows or self._encode_now(
                [self._texts.of(item, text) for item, text in zip(fetched.items, fetched.texts, strict=True)]
            )
            made = zip(texts, self._conditions_now(fetched), fetched.numbers, strict=True)
            cond = collate([{**text, **condition, **numbers} for text, condition, numbers in made])
        weight = torch.tensor([item.treatment.weight for item in fetched.items])
        mask, pairs = stack_masks(fetched.masks, latents), self._pairs(fetched.pairs)
        is_reg = all(item.treatment.is_reg for item in fetched.items)
        others, treatment = fetched.others, fetched.items[0].treatment
        if others is None:
            others = self._other_texts.conditions(fetched.items, fetched.other_texts, self._encode_now)
        batch = Batch(
            latents,
            cond,
            weight,
            fetched.u,
            fetched.noise,
            tuple(fetched.texts),
            mask,
            pairs,
            is_reg,
            fetched.draws,
            others,
            fetched.other_texts,
            treatment.strength,
            treatment.keeps_base,
        )
        return batch.to(self._context.device)

    def _pairs(self, pairs: list[Tensor | np.ndarray]) -> Tensor | None:
        if not pairs:
            return None
        arrays = [pair for pair in pairs if isinstance(pair, np.ndarray)]
        if arrays:
            return self._pictures.latents(np.stack(arrays))
        return torch.stack([pair for pair in pairs if isinstance(pair, Tensor)])

    def _encode_now(self, prompts: list[Prompt]) -> list[Row]:
        """Text rows on the device; the empty text has one already."""
        return [
            self._on_device(self._texts.get(prompt)) if prompt in self._texts else self._texts.make([prompt])[0]
            for prompt in prompts
        ]

    def _conditions_now(self, fetched: Fetched) -> list[Row]:
        """Rows of the references; on the device, where some are made now."""
        found = list(zip(fetched.items, fetched.conditions, strict=True))
        rows = [self._pictures.condition(row, item) if isinstance(row, list) else row for item, row in found]
        return [self._on_device(row) for row in rows] if any(isinstance(row, list) for _, row in found) else rows

    def _on_device(self, row: Row) -> Row:
        return {name: tensor.to(self._context.device) for name, tensor in row.items()}


def _weights(decoded: Decoded, shape: Sequence[int]) -> Tensor:
    assert decoded.mask is not None
    return torch.from_numpy(cell_weights(decoded.mask, shape[-2:], decoded.min_value))


def _collated(texts: list[Row], conditions: Sequence[Row | list[Image.Image]], numbers: list[Row]) -> Conditions | None:
    """The conditions of a batch; None while some are still pictures."""
    ready = [row for row in conditions if not isinstance(row, list)]
    if len(ready) < len(conditions):
        return None
    return collate([{**text, **made, **some} for text, made, some in zip(texts, ready, numbers, strict=True)])
