"""Batches for the loop: what can be encoded ahead comes from the caches, the rest is encoded when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain

import numpy as np

from toolkit.context import Context
from toolkit.data.cache.rows import RowCache
from toolkit.data.course import Course
from toolkit.data.item import Item
from toolkit.data.items import Items
from toolkit.data.loader import Loader, Position
from toolkit.data.workers import Workers
from toolkit.models.conditions import Row
from toolkit.models.family import Family
from toolkit.training.assembly import Assembly
from toolkit.training.bars import Bar
from toolkit.training.batch import Batch
from toolkit.training.companions import Companion
from toolkit.training.digests import Digests
from toolkit.training.draws import PLAIN_DRAWS, Draws
from toolkit.training.fetched import Fetched
from toolkit.training.other_texts import OtherTexts
from toolkit.training.picture_rows import PictureRows
from toolkit.training.prefetch import Prefetch
from toolkit.training.prompts import constant_prompts, item_prompts
from toolkit.training.text_rows import Prompt, TextRows
from toolkit.training.turns import Order, Turn, global_sizes

__all__ = ["Bar", "Feed"]


class Feed:
    """All samples of a run and how they become batches.

    `images`: the cache of latents, or None to encode every batch anew. `texts`: the cache of text rows; `conditions`:
    that of rows made of references, in memory unless it is given. `live_texts` leaves captions to the step, as
    `Batch.texts`, because their encoder is trained. `options` is what else of a config changes the rows of texts and
    references, so that none is served from a cache that was made otherwise. `workers` read pictures. `draws` is what
    random numbers the objective needs. `companions` are other texts for the same samples.
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
        draws: Draws = PLAIN_DRAWS,
        companions: Sequence[Companion] = (),
    ) -> None:
        assert not (live_texts and family.facts.prompt_images)
        self.family, self.context, self.data = family, context, data
        self.tell, self.live_texts = tell, live_texts
        self.workers = Workers() if workers is None else workers
        digests = Digests()
        self.text_rows = TextRows(family, context, texts, options, digests)
        self.other_texts = OtherTexts(companions, self.text_rows, context.seed)
        kept = RowCache() if conditions is None else conditions
        self.picture_rows = PictureRows(family, context, data, images, kept, self.workers, options, digests)
        texts_fixed = all(items.treatment.caption.is_fixed for items in data.datasets)
        self.texts_ahead = not live_texts and (texts_fixed or keep_texts)
        self.assembly = Assembly(
            context,
            data,
            self.picture_rows,
            self.text_rows,
            self.other_texts,
            draws,
            self.workers,
            lambda line: self.tell(line),
            texts_ahead=self.texts_ahead,
            live_texts=live_texts,
        )

    # -- encoding ahead -------------------------------------------------------------------------------------------

    def encode(self, bar: Bar, prompts: Sequence[Prompt] = ()) -> list[str]:
        """Fill the caches, one model part at a time; returns lines to print. Broken pictures are left out.

        With `live_texts`, only the `prompts` that are named here are encoded, no caption.
        """
        rows = self.picture_rows
        problems = [*self.text_rows.cache.notices, *rows.conditions.notices, *self._turns_taken()]
        if rows.images is not None:
            problems += rows.images.notices
            self._leave_out(rows.encode_latents(bar, problems), problems)
        self._leave_out(rows.encode_conditions(bar, problems), problems)
        empty = () if self.live_texts else (Prompt("", negative=True),)
        self.text_rows.encode(chain(empty, prompts, self._ahead()), bar, problems)
        return problems

    def _ahead(self) -> Iterable[Prompt]:
        """Prompts of the samples that are encoded before the first batch."""
        companions = self.other_texts.companions
        if self.texts_ahead:
            return item_prompts(self.data, self.text_rows, self.context.seed, companions)
        leaves_all = self.live_texts or self.family.facts.prompt_images
        return () if leaves_all else constant_prompts(companions)

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
            self.assembly.shrink(self.data)
        if not self.data:
            raise ValueError("no image is left to train on: " + "; ".join(problems))

    # -- batches --------------------------------------------------------------------------------------------------

    def plan_for(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch for this rank, as places in `data`."""
        return [turn.indices for turn in self._order().turns(epoch)]

    def _order(self, course: Course | None = None) -> Order:
        rows = self.picture_rows
        return Order(self.data, self.context, rows.signature if rows.has_references else None, course)

    def _order_from(self, start: Position, course: Course | None) -> Order:
        """The order of a run that goes on at `start`. ValueError if ranks do not have the same samples."""
        if course is not None and course.go_on(start, global_sizes(self.data, self.context)):
            self.tell(f"batches have another size: what is left of epoch {start.epoch} is put in order anew")
        order = self._order(course)
        if self.context.world > 1 and len(set(self.context.gather(order.fingerprint()))) > 1:
            raise ValueError("the processes of this run see different pictures; they must read the same folders")
        return order

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
        self, stack: ExitStack, start: Position, num_workers: int, prefetch: int, course: Course | None = None
    ) -> Iterator[tuple[Position, Batch]]:
        """Endless batches on the device from `start`, with the position after each; `stack` ends the threads.

        `course` is what sizes batches had until `start`; those of today are added.

        A batch of which no file can be read is passed over. Of several ranks, each takes as many steps as the others:
        one that has no part in a short batch, or cannot read its part, gets samples of weight 0.
        """
        stack.enter_context(self.family.parts.using(*self.parts_in_use()))
        loader: Loader[Turn, tuple[Fetched, bool]] = Loader(
            lambda _, turn: (self.assembly.fetch(turn.epoch, turn.indices), turn.is_spare),
            self._order_from(start, course).turns,
            start,
            num_workers,
            prefetch,
            lambda turn: ", ".join(str(self.data[place].record.path) for place in turn.indices.tolist()),
        )
        stack.enter_context(loader)
        return Prefetch(loader, self._finish, self.context.device, in_step=self.context.world > 1)

    def _finish(self, made: tuple[Fetched, bool]) -> Batch | None:
        fetched, is_spare = made
        batch = self.assembly.finish(fetched)
        return batch.as_spare() if batch is not None and is_spare else batch
