"""Pictures, videos and their references as latents and rows of conditions: the VAE's part of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from toolkit.context import Context
from toolkit.data.cache import RowCache, key_for
from toolkit.data.datasets import Items
from toolkit.data.encode import LATENTS, encode_images, encode_references
from toolkit.data.items import Item, crop_numbers
from toolkit.models.conditions import Row, signature
from toolkit.models.family import Family
from toolkit.training.bars import Bar, counting
from toolkit.training.text_rows import makers, stored

PICTURES_AT_ONCE = 8


class PictureRows:
    """How the items of a run are encoded, and where the results are kept.

    `images`: the cache of latents, or None to encode every batch anew, as random crops are in any case. `conditions`:
    that of rows made of references; `options` is what else of a config changes them.
    """

    def __init__(
        self,
        family: Family,
        context: Context,
        data: Items,
        images: RowCache | None,
        conditions: RowCache,
        options: str = "",
    ) -> None:
        self.family, self.context, self.images, self.conditions = family, context, images, conditions
        self.backgrounds, self.strict = data.backgrounds, data.strict
        takes_references = family.facts.references != "none"
        self.condition_parts = family.needs.get("encode_condition", ()) if takes_references else ()
        self._vae = makers(family, family.needs["encode_image"])
        self._encoders = [*makers(family, self.condition_parts), options]

    def is_cached(self, item: Item) -> bool:
        """Whether the latents of an item are the same every time and kept."""
        return self.images is not None and not item.random_crop

    def is_fixed(self, item: Item) -> bool:
        """Whether the references of an item are the same every time; then their row is kept."""
        return not (item.random_crop and item.references.follow_crop)

    # -- keys -----------------------------------------------------------------------------------------------------

    def image_key(self, item: Item) -> str:
        """Where the latents of an item are in a cache."""
        times = item.times(self.context.seed)
        return key_for(
            image=item.record.sha,
            **self._view(item),
            vae=self._vae,
            dtype=str(self.context.dtype),
            **({"times": times} if times else {}),
        )

    def condition_key(self, item: Item) -> str:
        """Where the conditions that are made of an item's references are in a cache."""
        offered = item.references
        source: dict[str, object] = {"first_frame": item.record.sha, "times": item.times(self.context.seed)[:1]}
        if not offered.first_frame:
            source = {"pictures": [record.sha for record in offered.pictures], "behind": offered.backgrounds}
        view = self._view(item) if offered.follow_crop else {"flips": [item.flip_x, item.flip_y]}
        return key_for(
            **source,
            **view,
            shape=self.latent_shape(item),
            encoders=self._encoders,
            dtype=str(self.context.dtype),
        )

    def _view(self, item: Item) -> dict[str, object]:
        return {
            "size": item.size,
            "flips": [item.flip_x, item.flip_y],
            "box": item.box(self.context.seed),
            "background": self.backgrounds[item.dataset],
        }

    # -- encoding ahead -------------------------------------------------------------------------------------------

    def encode_latents(self, items: Sequence[Item], cache: RowCache, bar: Bar, problems: list[str]) -> set[str]:
        """Put the latents of `items` into `cache`; returns the ids of those that cannot be read."""
        work = partial(encode_images, encode=self.latents, batch_size=PICTURES_AT_ONCE, key_of=self.image_key)
        return self._encode(items, work, self.family.needs["encode_image"], cache, "images", bar, problems)

    def encode_conditions(self, items: Sequence[Item], bar: Bar, problems: list[str]) -> set[str]:
        """Keep the rows of the references of `items`, which all have some; returns as `encode_latents`."""
        work = partial(encode_references, encode=self.condition, key_of=self.condition_key)
        return self._encode(items, work, self.condition_parts, self.conditions, "references", bar, problems)

    def _encode(
        self,
        items: Sequence[Item],
        work: partial[list[str]],
        parts: Sequence[str],
        cache: RowCache,
        kind: str,
        bar: Bar,
        problems: list[str],
    ) -> set[str]:
        key_of = work.keywords["key_of"]
        missing = [item for item in items if key_of(item) not in cache]
        if not missing:
            return set()
        # repeats share a row
        num_rows = len({key_of(item) for item in missing})
        dropped: set[str] = set()
        with self.family.parts.using(*parts), torch.no_grad(), bar(f"encoding {kind}", num_rows) as advance:
            for number, background in enumerate(self.backgrounds):
                dropped |= set(
                    work(
                        [item for item in missing if item.dataset == number],
                        cache,
                        on_progress=counting(advance),
                        problems=problems,
                        strict=self.strict[number],
                        background=background,
                        seed=self.context.seed,
                    )
                )
        return dropped

    # -- encoding -------------------------------------------------------------------------------------------------

    def latents(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, (F,) H, W] in -1..1 -> latents as the cache keeps them."""
        return self.family.encode_image(pixels.to(self.context.device)).to(self.context.dtype)

    def condition(self, images: list[Image.Image], item: Item) -> Row:
        """The row of one item's references."""
        return stored(self.family.encode_condition(images, self.latent_shape(item)), self.context.dtype)

    # -- what was encoded -----------------------------------------------------------------------------------------

    def stored_latents(self, items: Sequence[Item]) -> Tensor | None:
        """The cached latents of items, [B, C, (f,) h, w]."""
        if self.images is None or not items:
            return None
        return torch.stack([self.images.get(self.image_key(item))[LATENTS] for item in items])

    def stored_condition(self, item: Item) -> Row:
        """The stored row of an item's references."""
        return self.conditions.get(self.condition_key(item)) if item.references else {}

    def signature(self, item: Item) -> tuple[object, ...]:
        """What must agree between the references of samples that share a batch."""
        if not item.references or not self.is_fixed(item):
            return ()
        shapes = self.conditions.shapes(self.condition_key(item))
        return signature({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})

    # -- arithmetic -----------------------------------------------------------------------------------------------

    def latent_shape(self, item: Item) -> tuple[int, ...]:
        """[C, (f,) h, w] of an item's latents."""
        facts, (width, height) = self.family.facts, item.size
        frames = ((max(1, item.num_frames) - 1) // facts.frame_stride + 1,) if facts.frame_stride else ()
        return (facts.channels, *frames, height // facts.stride, width // facts.stride)

    def numbers(self, item: Item, epoch: int) -> Row:
        """The numbers of a sample that the network takes; they need no encoding."""
        known = {"size": lambda: crop_numbers(item, self.context.seed, epoch), "fps": lambda: item.fps}
        return {name: torch.tensor(known[name]()) for name in self.family.facts.numbers}
