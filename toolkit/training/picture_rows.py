"""Pictures, videos and their references as latents and rows of conditions: the VAE's part of a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from toolkit.context import Context
from toolkit.data.cache.encode import LATENTS, MASK, PAIR, Broken, Wanted, encode_images, encode_references, wanted
from toolkit.data.cache.rows import RowCache, as_array, key_for
from toolkit.data.item import Item, crop_numbers
from toolkit.data.items import Items
from toolkit.data.loader import in_order
from toolkit.data.pictures.image import BrokenImage
from toolkit.data.records import READERS
from toolkit.data.workers import APART_FROM, Workers
from toolkit.models.conditions import Row, signature
from toolkit.models.family import Family
from toolkit.training.bars import Bar, counting
from toolkit.training.digests import Digests
from toolkit.training.row_keys import READ_AHEAD, RowKeys, latent_key, unread, variants
from toolkit.training.text_rows import makers, stored

PICTURES_AT_ONCE = 8


class PictureRows:
    """How the samples of a run are encoded, and where the results are kept.

    `images`: the cache of latents, or None to encode every batch anew. `conditions`: that of rows made of references;
    `options` is what else of a config changes them. With a cache, what is random about a sample is drawn for a number
    of versions, which take turns.
    """

    def __init__(
        self,
        family: Family,
        context: Context,
        data: Items,
        images: RowCache | None,
        conditions: RowCache,
        workers: Workers,
        options: str = "",
        digests: Digests | None = None,
    ) -> None:
        self.family, self.context, self.images, self.conditions = family, context, images, conditions
        self.data, self.workers, self._digests = data, workers, digests or Digests()
        takes_references = family.facts.references != "none"
        self.condition_parts = family.needs.get("encode_condition", ()) if takes_references else ()
        self.has_references = any(items.references is not None for items in data.datasets)
        self._encoder = key_for(vae=makers(family, family.needs["encode_image"]), dtype=str(context.dtype))
        self._encoders = [*(makers(family, self.condition_parts) if takes_references else ()), options]

    def version(self, item: Item, epoch: int) -> int:
        """Which epoch decides what is random about an item in this one."""
        return epoch if self.images is None else epoch % variants(item.treatment)

    def is_fixed(self, item: Item) -> bool:
        """Whether the rows of an item's references are kept; else they are made of every new crop."""
        return self.images is not None or not (item.treatment.is_random and item.references.follow_crop)

    # -- keys -----------------------------------------------------------------------------------------------------

    @cached_property
    def keys(self) -> RowKeys:
        """Those of all latents."""
        return RowKeys(self.data, self.context.seed, self._encoder)

    def image_key(self, item: Item, epoch: int = 0) -> bytes:
        """Where the latents of an item are in a cache."""
        return latent_key(item, self.context.seed, epoch % variants(item.treatment), self._encoder)

    def condition_key(self, item: Item, epoch: int = 0) -> bytes:
        """Where the conditions that are made of an item's references are in a cache."""
        offered, seed = item.references, self.context.seed
        files = (item.record,) if offered.first_frame else offered.pictures
        digests = [self._digests.of(record).hex() for record in files]
        source: dict[str, object] = {"pictures": digests, "behind": offered.backgrounds}
        if offered.first_frame:
            source = {"first_frame": digests[0], "times": item.times(seed)[:1]}
        view: dict[str, object] = {"flips": [item.flip_x, item.flip_y]}
        if offered.follow_crop:
            version = epoch % variants(item.treatment)
            drawn = [seed, version, item.id] if item.treatment.is_random else []
            view |= {**item.treatment.view(), "size": item.size, "box": item.box(seed, version), "drawn": drawn}
        return key_for(
            **source, **view, shape=self.latent_shape(item), encoders=self._encoders, dtype=str(self.context.dtype)
        )

    # -- encoding ahead -------------------------------------------------------------------------------------------

    def encode_latents(self, bar: Bar, problems: list[str]) -> list[int]:
        """Fill the cache of latents; returns the places of samples that cannot be read, named in `problems`."""
        assert self.images is not None
        keys, places, versions = self.keys.all()
        can_be = np.ones(len(keys), bool)
        if self.keys.broken:
            can_be = ~np.isin(places, list(self.keys.broken))
        rows = wanted(self.images, keys[can_be], places[can_be], versions[can_be])
        work = partial(self._encode_latents, self.data, cache=self.images, bar=bar)
        broken = self._by_all_ranks(rows, self.images, work)
        lost = {**self.keys.broken, **_places(broken, keys, places)}
        return self._report(self.data, lost, problems)

    def encode_items(self, items: Sequence[Item], cache: RowCache, bar: Bar, problems: list[str]) -> list[int]:
        """The same for items that are no part of the run's data, in another cache."""
        keys, places = as_array([self.image_key(item) for item in items]), np.arange(len(items))
        rows = wanted(cache, keys, places, np.zeros_like(places))
        broken = self._encode_latents(items, rows, cache, bar)
        return self._report(items, _places(broken, keys, places), problems)

    def encode_conditions(self, bar: Bar, problems: list[str]) -> list[int]:
        """Keep the rows of references, wherever they stay the same; returns as `encode_latents`."""
        if not self.has_references:
            return []
        lost: dict[int, BrokenImage] = {}
        found: list[tuple[bytes, int, int]] = []
        for place, made in enumerate(in_order(self._condition_keys, self.data, READERS, READ_AHEAD)):
            if isinstance(made, BrokenImage):
                lost[place] = made
            else:
                found += [(key, place, epoch) for epoch, key in enumerate(made)]
        keys = as_array([key for key, _, _ in found])
        places, versions = (np.array([entry[column] for entry in found], np.int64) for column in (1, 2))
        rows = wanted(self.conditions, keys, places, versions)

        def encode(rows: Wanted) -> Broken:
            work = partial(encode_references, self.data, rows, self.conditions, self.condition, self.workers)
            return self._with_parts(self.condition_parts, "references", len(rows), bar, work)

        broken = self._by_all_ranks(rows, self.conditions, encode)
        return self._report(self.data, {**lost, **_places(broken, keys, places)}, problems)

    def _by_all_ranks(self, rows: Wanted, cache: RowCache, encode: Callable[[Wanted], Broken]) -> Broken:
        """Each rank encodes its part, and finds that of the others in the cache on disk."""
        context = self.context
        found = context.gather(encode(rows.part(context.rank, context.world)))
        if context.world > 1:
            cache.refresh()
        return {key: error for broken in found for key, error in broken.items()}

    def _condition_keys(self, item: Item) -> list[bytes] | BrokenImage:
        """Those of all versions of an item's references that are kept; hashes their files."""
        if not (item.references and self.is_fixed(item)):
            return []
        num_versions = variants(item.treatment) if item.references.follow_crop else 1
        try:
            return [self.condition_key(item, epoch) for epoch in range(num_versions)]
        except OSError as error:
            return unread(item, error)

    def _encode_latents(self, data: Sequence[Item], rows: Wanted, cache: RowCache, bar: Bar) -> Broken:
        sizes = self.sizes(data)[rows.indices]
        if (sizes[:, :2].astype(np.int64).prod(1) * np.maximum(sizes[:, 2], 1)).sum() >= APART_FROM:
            # while the weights are loaded
            self.workers.start()
        work = partial(encode_images, data, rows, sizes, cache, self.latents, PICTURES_AT_ONCE, self.workers)
        return self._with_parts(self.family.needs["encode_image"], "images", len(rows), bar, work)

    def _with_parts(self, parts: Sequence[str], kind: str, count: int, bar: Bar, work: partial[Broken]) -> Broken:
        if not count:
            return {}
        with self.family.parts.using(*parts), torch.no_grad(), bar(f"encoding {kind}", count) as advance:
            return work(counting(advance), seed=self.context.seed)

    def _report(self, data: Sequence[Item], lost: dict[int, BrokenImage], problems: list[str]) -> list[int]:
        """Name every broken file once, however many samples show it; raise where one may not be."""
        strict = dict.fromkeys(str(error) for place, error in lost.items() if data[place].treatment.strict)
        if strict:
            raise ValueError("; ".join(strict))
        problems += [f"{line}; left out" for line in dict.fromkeys(str(error) for error in lost.values())]
        return sorted(lost)

    def leave_out(self, data: Items, places: Sequence[int]) -> None:
        """Go on with `data`, which lacks the samples at some places."""
        if self.images is not None:
            self.keys.leave_out(places)
        self.data = data

    # -- encoding -------------------------------------------------------------------------------------------------

    def latents(self, pixels: np.ndarray) -> Tensor:
        """Pixels, uint8 [B, (F,) H, W, 3], -> latents as the cache keeps them."""
        # as bytes: a quarter of what the copy to a GPU would be
        moved = rearrange(torch.from_numpy(pixels).to(self.context.device), "b ... c -> b c ...")
        scaled = moved.contiguous().float().div_(127.5).sub_(1)
        return self.family.encode_image(scaled).to(self.context.dtype)

    def condition(self, images: list[Image.Image], item: Item) -> Row:
        """The row of one item's references."""
        return stored(self.family.encode_condition(images, self.latent_shape(item)), self.context.dtype)

    # -- what was encoded -----------------------------------------------------------------------------------------

    def stored_latents(self, keys: np.ndarray) -> Tensor:
        """Cached latents [B, C, (f,) h, w]: one copy, to where a GPU can fetch them from."""
        assert self.images is not None
        return self.images.gather(keys, LATENTS, pin=self.context.device.type == "cuda")

    def stored_extras(self, keys: np.ndarray) -> list[tuple[Tensor | None, Tensor | None]]:
        """The cached mask [h, w] and the latents of the pair of every sample."""
        assert self.images is not None
        return [(row.get(MASK), row.get(PAIR)) for row in self.images.rows(keys)]

    def stored_condition(self, item: Item, epoch: int = 0) -> Row:
        """The stored row of an item's references."""
        return self.conditions.get(self.condition_key(item, epoch)) if item.references else {}

    def signature(self, item: Item) -> tuple[object, ...]:
        """What must agree between the references of samples that share a batch."""
        if not item.references:
            return ()
        if not self.is_fixed(item):
            return (len(item.references.pictures),)
        shapes = self.conditions.shapes(self.condition_key(item))
        return signature({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})

    # -- arithmetic -----------------------------------------------------------------------------------------------

    def sizes(self, data: Sequence[Item]) -> np.ndarray:
        """int32 [N, 3]: width, height and number of frames of items."""
        if isinstance(data, Items):
            return data.sizes()
        return np.array([(*item.size, item.num_frames) for item in data], np.int32).reshape(-1, 3)

    def latent_shape(self, item: Item) -> tuple[int, ...]:
        """[C, (f,) h, w] of an item's latents."""
        facts, (width, height) = self.family.facts, item.size
        frames = ((max(1, item.num_frames) - 1) // facts.frame_stride + 1,) if facts.frame_stride else ()
        return (facts.channels, *frames, height // facts.stride, width // facts.stride)

    def numbers(self, item: Item, epoch: int) -> Row:
        """The numbers of a sample that the network takes; they need no encoding."""
        at = self.context.seed, self.version(item, epoch)
        known = {"size": lambda: crop_numbers(item, *at), "fps": lambda: item.fps}
        return {name: torch.tensor(known[name]()) for name in self.family.facts.numbers}


def _places(broken: Broken, keys: np.ndarray, places: np.ndarray) -> dict[int, BrokenImage]:
    """The samples whose rows cannot be made."""
    return {
        int(place): error for key, error in broken.items() for place in places[(keys == as_array([key])).all(axis=1)]
    }
