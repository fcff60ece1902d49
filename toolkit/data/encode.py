"""Fills a row cache: pictures to latents, references to conditions, captions to text rows; encoders are arguments."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from math import ceil, prod
from typing import TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from toolkit.data.bucket import Size
from toolkit.data.cache import Row, RowCache
from toolkit.data.image import WHITE, BrokenImage, Color, to_pixels
from toolkit.data.items import Item
from toolkit.data.loader import in_order
from toolkit.data.pixels import item_pixels, item_references

T = TypeVar("T")
LATENTS = "latents"
Progress = Callable[[int, int], None]
"""Called with (done, total) after every batch."""


def encode_images(
    items: Sequence[Item],
    cache: RowCache,
    encode: Callable[[Tensor], Tensor],
    batch_size: int,
    key_of: Callable[[Item], str],
    on_progress: Progress | None = None,
    *,
    problems: list[str] | None = None,
    strict: bool = False,
    background: Color = WHITE,
    seed: int = 0,
    num_workers: int = 4,
) -> list[str]:
    """Store {"latents": [C, (f,) h, w]} for every item whose key is missing; return the ids of those not readable.

    `encode` maps pixels [B, 3, (F,) H, W] in -1..1 to latents; batches hold up to `batch_size` pictures or frames of
    one bucket, at least one item, and threads decode ahead of it. Files whose pixels are broken are named in
    `problems`; with `strict`, all of them are one ValueError (raised at the end, so that the good ones are stored).
    Random crops are those of epoch 0.
    """
    keys, wanted = _wanted(items, cache, key_of, num_workers)
    batches = _by_bucket(wanted, batch_size)
    todo = [wanted[key] for batch in batches for key in batch]
    load = partial(_load, background=background, seed=seed)
    broken: dict[str | BrokenImage, BrokenImage] = {key: key for key in keys if isinstance(key, BrokenImage)}
    num_done = 0
    # two batches of pictures are decoded ahead
    largest = max(map(len, batches), default=1)
    ahead = in_order(load, todo, num_workers, ceil(2 * largest / max(1, num_workers)))
    with closing(ahead) as loaded:
        try:
            for batch in batches:
                results = {key: next(loaded) for key in batch}
                broken |= {key: result for key, result in results.items() if isinstance(result, BrokenImage)}
                _store(cache, encode, {key: array for key, array in results.items() if isinstance(array, np.ndarray)})
                num_done += len(batch)
                if on_progress:
                    on_progress(num_done, len(wanted))
        finally:
            cache.flush()
    _report(broken.values(), [] if problems is None else problems, strict)
    return [item.id for key, item in zip(keys, items, strict=True) if key in broken]


def encode_references(
    items: Sequence[Item],
    cache: RowCache,
    encode: Callable[[list[Image.Image], Item], Row],
    key_of: Callable[[Item], str],
    on_progress: Progress | None = None,
    *,
    problems: list[str] | None = None,
    strict: bool = False,
    background: Color = WHITE,
    seed: int = 0,
    num_workers: int = 4,
) -> list[str]:
    """Store the row that `encode` makes of the references of every item, one by one; else as `encode_images`."""
    keys, wanted = _wanted(items, cache, key_of, num_workers)
    broken: dict[str | BrokenImage, BrokenImage] = {key: key for key in keys if isinstance(key, BrokenImage)}
    load = partial(_load_references, background=background, seed=seed)
    with closing(in_order(load, wanted.values(), num_workers, prefetch=1)) as loaded:
        try:
            for number, (key, pictures) in enumerate(zip(wanted, loaded, strict=True)):
                if isinstance(pictures, BrokenImage):
                    broken[key] = pictures
                else:
                    cache.put(key, encode(pictures, wanted[key]))
                if on_progress:
                    on_progress(number + 1, len(wanted))
        finally:
            cache.flush()
    _report(broken.values(), [] if problems is None else problems, strict)
    return [item.id for key, item in zip(keys, items, strict=True) if key in broken]


def encode_texts(
    texts: Sequence[T],
    cache: RowCache,
    encode: Callable[[list[T]], Sequence[Row]],
    batch_size: int,
    key_of: Callable[[T], str],
    on_progress: Progress | None = None,
    text_of: Callable[[T], str] = str,
) -> None:
    """Store the row of every text whose key is missing; one that comes up often is encoded once."""
    wanted = {key: text for text in texts if (key := key_of(text)) not in cache}
    # texts of like length together, because encoders pad a batch to its longest
    entries = sorted(wanted.items(), key=lambda entry: (len(text_of(entry[1])), text_of(entry[1])))
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


def _wanted(
    items: Sequence[Item], cache: RowCache, key_of: Callable[[Item], str], num_workers: int
) -> tuple[list[str | BrokenImage], dict[str, Item]]:
    """The key of every item, or why it has none; and one item for every key that is missing."""
    with closing(in_order(partial(_key, key_of=key_of), items, num_workers, prefetch=4)) as found:
        keys = list(found)
    wanted = {key: item for key, item in zip(keys, items, strict=True) if isinstance(key, str) and key not in cache}
    return keys, wanted


def _key(item: Item, key_of: Callable[[Item], str]) -> str | BrokenImage:
    """The key of an item; making it reads the file, which can fail too."""
    try:
        return key_of(item)
    except OSError as error:
        return BrokenImage(item.record.path, error.strerror or str(error))


def _load(item: Item, background: Color, seed: int) -> np.ndarray | BrokenImage:
    try:
        return item_pixels(item, background, seed)
    except BrokenImage as error:
        return error


def _load_references(item: Item, background: Color, seed: int) -> list[Image.Image] | BrokenImage:
    try:
        return item_references(item, background, seed)
    except BrokenImage as error:
        return error


def _by_bucket(wanted: dict[str, Item], batch_size: int) -> list[list[str]]:
    """Keys in batches of one bucket; the biggest first, so that memory runs out at once or never."""
    buckets: dict[tuple[Size, int], list[str]] = {}
    for key, item in wanted.items():
        buckets.setdefault((item.size, max(1, item.num_frames)), []).append(key)
    largest_first = sorted(buckets.items(), key=lambda entry: (-prod(entry[0][0]) * entry[0][1], entry[0]))
    batches: list[list[str]] = []
    for (_, num_frames), keys in largest_first:
        step = max(1, batch_size // num_frames)
        batches += [keys[start : start + step] for start in range(0, len(keys), step)]
    return batches


def _store(cache: RowCache, encode: Callable[[Tensor], Tensor], arrays: dict[str, np.ndarray]) -> None:
    """Encode one batch and store its rows."""
    if arrays:
        latents = encode(to_pixels(np.stack(list(arrays.values()))))
        for key, row in zip(arrays, latents, strict=True):
            cache.put(key, {LATENTS: row})


def _report(broken: Iterable[BrokenImage], problems: list[str], strict: bool) -> None:
    """Name every broken file once, however many items show it."""
    lines = list(dict.fromkeys(str(error) for error in broken))
    if strict and lines:
        raise ValueError("; ".join(lines))
    problems += [f"{line}; left out" for line in lines]
