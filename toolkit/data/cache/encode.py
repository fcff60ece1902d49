"""Fills a row cache: pictures to latents, references to conditions, captions to text rows; encoders are arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from einops import reduce
from PIL import Image
from torch import Tensor

from toolkit.data.cache.rows import Row, RowCache
from toolkit.data.item import Item
from toolkit.data.pictures.decoding import Decoded, Unread, Wish, decode
from toolkit.data.pictures.image import BrokenImage
from toolkit.data.workers import APART_FROM, Workers

T = TypeVar("T")
LATENTS, MASK, PAIR = "latents", "mask", "pair"
Progress = Callable[[int, int], None]
"""Called with (done, total) after every batch."""
Broken = dict[bytes, BrokenImage]
"""Keys of rows that cannot be made, and why."""


@dataclass(frozen=True)
class Wanted:
    """Rows that a cache lacks, each once."""

    keys: np.ndarray
    """uint64 [n, 2]."""
    indices: np.ndarray
    """Which sample each one is made of, int64 [n]."""
    epochs: np.ndarray
    """As it is in which epoch, int64 [n]."""

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, rank: int, world: int) -> Wanted:
        """Those that one of several ranks makes, whatever each of them believes to be missing."""
        own = self.keys[:, 0] % np.uint64(world) == rank
        return Wanted(self.keys[own], self.indices[own], self.epochs[own])

    def key(self, place: int) -> bytes:
        """One of the keys."""
        return self.keys[place].tobytes()

    def wish(self, data: Sequence[Item], place: int, seed: int, **kinds: bool) -> Wish:
        """What to read for one of the rows."""
        return Wish(data[int(self.indices[place])], seed, int(self.epochs[place]), **kinds)


def wanted(cache: RowCache, keys: np.ndarray, indices: np.ndarray, epochs: np.ndarray) -> Wanted:
    """Those of many rows that are missing; of equal ones, the first."""
    missing = np.flatnonzero(~cache.contains(keys))
    _, first = np.unique(keys[missing], axis=0, return_index=True)
    places = missing[np.sort(first)]
    return Wanted(keys[places], indices[places], epochs[places])


def encode_images(
    data: Sequence[Item],
    rows: Wanted,
    sizes: np.ndarray,
    cache: RowCache,
    encode: Callable[[np.ndarray], Tensor],
    batch_size: int,
    workers: Workers,
    on_progress: Progress | None = None,
    *,
    seed: int = 0,
) -> Broken:
    """Store {"latents": [C, (f,) h, w]} for every row, with "mask" [h, w] and "pair" where a sample has them.

    `encode` maps pixels, uint8 [B, (F,) H, W, 3], to latents. Batches hold up to `batch_size` pictures or frames of one
    of `sizes` [n, 3], at least one sample; the biggest come first. Workers read ahead of it.
    """
    batches = by_bucket(sizes, batch_size)
    pixels = (sizes.astype(np.int64)[:, :2].prod(1) * np.maximum(sizes[:, 2], 1)).sum()
    wishes = (rows.wish(data, place, seed) for batch in batches for place in batch.tolist())
    # two batches are read ahead
    most = 2 * max(map(len, batches), default=1)
    results = workers.map(decode, wishes, apart=bool(pixels >= APART_FROM), ahead=most)
    broken: Broken = {}
    num_done = 0
    with closing(results) as loaded:  # type: ignore[type-var]
        try:
            for made in _one_behind(_encoded(rows, batches, loaded, encode, broken)):
                for key, row in made.wait().items():
                    cache.put(key, row)
                num_done += made.num_done
                if on_progress:
                    on_progress(num_done, len(rows))
        finally:
            cache.flush()
    return broken


def encode_references(
    data: Sequence[Item],
    rows: Wanted,
    cache: RowCache,
    encode: Callable[[list[Image.Image], Item], Row],
    workers: Workers,
    on_progress: Progress | None = None,
    *,
    seed: int = 0,
) -> Broken:
    """Store the row that `encode` makes of the references of every sample, one by one; else as `encode_images`."""
    wishes = (rows.wish(data, place, seed, pixels=False, references=True) for place in range(len(rows)))
    # a guess: references are about as large as a picture of a model of today
    results = workers.map(decode, wishes, apart=len(rows) * 2**20 >= APART_FROM)
    broken: Broken = {}
    with closing(results) as loaded:  # type: ignore[type-var]
        try:
            for place, result in enumerate(loaded):
                if isinstance(result, Unread):
                    broken[rows.key(place)] = result.error
                else:
                    cache.put(rows.key(place), encode(result.pictures, data[int(rows.indices[place])]))
                if on_progress:
                    on_progress(place + 1, len(rows))
        finally:
            cache.flush()
    return broken


def encode_texts(
    texts: Mapping[bytes, T],
    cache: RowCache,
    encode: Callable[[list[T]], Sequence[Row]],
    batch_size: int,
    on_progress: Progress | None = None,
    text_of: Callable[[T], str] = str,
) -> None:
    """Store the row of every text by its key; none is there yet."""
    # texts of like length together, because encoders pad a batch to its longest
    entries = sorted(texts.items(), key=lambda entry: (len(text_of(entry[1])), text_of(entry[1])))
    try:
        for start in range(0, len(entries), batch_size):
            batch = entries[start : start + batch_size]
            rows = encode([text for _, text in batch])
            for (key, _), row in zip(batch, rows, strict=True):
                cache.put(key, row)
            if on_progress:
                on_progress(start + len(batch), len(entries))
    finally:
        cache.flush()


def by_bucket(sizes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Places in `sizes` [n, 3] in batches of one size; the biggest first, so that memory runs out at once or never."""
    if not len(sizes):
        return []
    width, height, frames = sizes.astype(np.int64).T
    frames = np.maximum(frames, 1)
    order = np.lexsort((frames, height, width, -width * height * frames))
    ordered = np.stack([width, height, frames], axis=1)[order]
    starts = [0, *(np.flatnonzero((ordered[1:] != ordered[:-1]).any(1)) + 1).tolist(), len(order)]
    batches: list[np.ndarray] = []
    for start, stop in pairwise(starts):
        step = max(1, batch_size // int(ordered[start, 2]))
        batches += [order[first : min(first + step, stop)] for first in range(start, stop, step)]
    return batches


def cell_weights(mask: np.ndarray, cells: Sequence[int], min_value: float) -> np.ndarray:
    """A mask uint8 [H, W] as weights of latent cells [h, w]: means of areas, from `min_value` to 1, then of mean 1.

    A mask that is black, with nothing to be seen of it at `min_value` 0, leaves all weights 0.
    """
    (height, width), (h, w) = mask.shape, cells
    shares = reduce(mask.astype(np.float32), "(h p) (w q) -> h w", "mean", p=height // h, q=width // w) / 255
    weights = min_value + (1 - min_value) * shares
    mean = float(weights.mean())
    return (weights / mean if mean else weights).astype(np.float32)


@dataclass(frozen=True)
class _Made:
    """The rows of one batch on their way to the host."""

    rows: dict[bytes, dict[str, Tensor]]
    copied: list[torch.cuda.Event]
    """When they have arrived."""
    num_done: int

    def wait(self) -> dict[bytes, dict[str, Tensor]]:
        """The rows, once they are there."""
        for event in self.copied:
            event.synchronize()
        return self.rows


def _encoded(
    rows: Wanted,
    batches: Iterable[np.ndarray],
    loaded: Iterator[Decoded | Unread],
    encode: Callable[[np.ndarray], Tensor],
    broken: Broken,
) -> Iterator[_Made]:
    """The rows of every batch; those that cannot be read go to `broken`."""
    for batch in batches:
        results = {rows.key(place): next(loaded) for place in batch.tolist()}
        broken |= {key: result.error for key, result in results.items() if isinstance(result, Unread)}
        good = {key: result for key, result in results.items() if isinstance(result, Decoded)}
        yield _made(good, encode, len(batch))


def _made(decoded: Mapping[bytes, Decoded], encode: Callable[[np.ndarray], Tensor], num_done: int) -> _Made:
    made = _Made({key: {} for key in decoded}, [], num_done)
    pixels = {key: each.pixels for key, each in decoded.items() if each.pixels is not None}
    pairs = {key: each.pair for key, each in decoded.items() if each.pair is not None}
    for name, arrays in ((LATENTS, pixels), (PAIR, pairs)):
        if arrays:
            latents = _on_host(encode(np.stack(list(arrays.values()))), made.copied)
            for key, row in zip(arrays, latents, strict=True):
                made.rows[key][name] = row
    for key, each in decoded.items():
        if each.mask is not None:
            cells = made.rows[key][LATENTS].shape[-2:]
            made.rows[key][MASK] = torch.from_numpy(cell_weights(each.mask, cells, each.min_value))
    return made


def _on_host(latents: Tensor, copied: list[torch.cuda.Event]) -> Tensor:
    """A copy on the host; one from a GPU is there at an event, which is added to `copied`."""
    if latents.device.type != "cuda":
        return latents.cpu()
    host = torch.empty(latents.shape, dtype=latents.dtype, pin_memory=True).copy_(latents, non_blocking=True)
    copied.append(torch.cuda.Event())
    copied[-1].record()
    return host


def _one_behind(items: Iterator[T]) -> Iterator[T]:
    """The same, each when the next one has been begun: a GPU computes one batch while the one before is stored."""
    waiting: list[T] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
