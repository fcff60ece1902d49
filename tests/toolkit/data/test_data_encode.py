"""Filling the caches: each thing once, by buckets, and broken files by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from toolkit.data.cache.encode import (
    LATENTS,
    MASK,
    PAIR,
    Broken,
    by_bucket,
    cell_weights,
    encode_images,
    encode_references,
    encode_texts,
    wanted,
)
from toolkit.data.cache.rows import RowCache, as_array, key_for
from toolkit.data.frames import FrameRule
from toolkit.data.item import Item
from toolkit.data.items import expand
from toolkit.data.pictures.image import to_pixels
from toolkit.data.pictures.masks import MaskRule
from toolkit.data.pictures.pixels import item_pixels
from toolkit.data.pictures.references import References
from toolkit.data.records import Record
from toolkit.data.scanning.scan import scan
from toolkit.data.treatment import Treatment
from toolkit.data.workers import APART_FROM, Workers

THREADS = Workers(0)


def _key(item: Item) -> bytes:
    return key_for(content=item.record.digest.hex(), size=item.size, flip=(item.flip_x, item.flip_y))


def _folder(folder: Path, count: int = 5) -> list[Item]:
    """Pictures of two sizes, each of them twice."""
    rng = np.random.default_rng(0)
    for number in range(count):
        shape = (48, 64, 3) if number % 2 else (64, 64, 3)
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(folder / f"{number}.png")
    items = list(expand(scan(folder).records, [64], 16))
    return [replace(item, repeat=repeat) for item in items for repeat in range(2)]


def _encode(items: Sequence[Item], cache: RowCache, encode: Any, batch_size: int, *rest: Any, **options: Any) -> Broken:
    """`encode_images` of what is missing."""
    numbers = np.arange(len(items))
    rows = wanted(cache, as_array(map(_key, items)), numbers, np.zeros_like(numbers))
    sizes = np.array([(*item.size, item.num_frames) for item in items], np.int32)[rows.indices]
    return encode_images(items, rows, sizes, cache, encode, batch_size, *(rest or (THREADS,)), **options)


def _break(folder: Path, name: str) -> None:
    """Cut a picture in its body, behind the header that the scan reads."""
    (folder / name).write_bytes((folder / name).read_bytes()[:-2000])


class _Encoder:
    """Halves the sides; keeps what it was given."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, pixels: np.ndarray) -> Tensor:
        self.shapes.append(tuple(pixels.shape))
        return torch.nn.functional.avg_pool2d(to_pixels(pixels), 2)


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_every_picture_is_encoded_once_in_batches_of_a_bucket(tmp_path: Path, num_workers: int) -> None:
    items, encode, cache, progress = _folder(tmp_path), _Encoder(), RowCache(tmp_path / "c"), list[tuple[int, int]]()
    with Workers(num_workers) as workers:
        assert _encode(items, cache, encode, 2, workers, lambda *done: progress.append(done)) == {}
    # the two repeats of an item share their row; large pictures go first
    assert encode.shapes == [(2, 64, 64, 3), (1, 64, 64, 3), (2, 48, 64, 3)]
    assert progress == [(2, 5), (3, 5), (5, 5)]
    for item in items:
        expected = _Encoder()(item_pixels(item)[None])[0]
        assert torch.equal(RowCache(tmp_path / "c").get(_key(item))[LATENTS], expected)


def test_many_pictures_are_read_by_processes(tmp_path: Path) -> None:
    shape = (2048, 2048)
    Image.new("L", shape, 77).save(tmp_path / "a.png")
    count = int(APART_FROM / 2048**2) + 1
    items = [
        replace(item, repeat=number) for item in expand(scan(tmp_path).records, [2048], 16) for number in range(count)
    ]
    rows = wanted(
        RowCache(), as_array(key_for(n=number) for number in range(count)), np.arange(count), np.arange(count)
    )
    sizes = np.array([(*shape, 0)] * count)
    cache = RowCache()

    def mean(pixels: np.ndarray) -> Tensor:
        return torch.full((len(pixels), 1, 1, 1), float(pixels.mean()))

    with Workers(2) as workers:
        assert encode_images(items, rows, sizes, cache, mean, 2, workers) == {}
        assert len(workers._shared.processes) == 2
    assert all(cache.get(key_for(n=number))[LATENTS].item() == 77 for number in range(count))


def test_what_is_cached_is_not_encoded_again(tmp_path: Path) -> None:
    items, encode = _folder(tmp_path), _Encoder()
    _encode(items[:4], RowCache(tmp_path / "c"), encode, 8)
    encode.shapes.clear()
    _encode(items, RowCache(tmp_path / "c"), encode, 8)
    assert sum(shape[0] for shape in encode.shapes) == 3
    encode.shapes.clear()
    _encode(items, RowCache(tmp_path / "c"), encode, 8)
    assert encode.shapes == []


def test_a_picture_that_cannot_be_read_costs_only_itself(tmp_path: Path) -> None:
    items, cache = _folder(tmp_path), RowCache(tmp_path / "c")
    _break(tmp_path, "2.png")
    broken = _encode(items, cache, _Encoder(), 4)
    assert list(broken) == [_key(items[4])] and str(tmp_path / "2.png") in str(broken[_key(items[4])])
    assert len(RowCache(tmp_path / "c")) == 4


def test_rows_made_before_an_interrupt_are_kept(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _encode(_folder(tmp_path), RowCache(tmp_path / "c"), _Encoder(), 2, THREADS, stop)
    assert len(RowCache(tmp_path / "c")) == 2


def test_the_biggest_bucket_goes_first_and_frames_count_as_pictures() -> None:
    sizes = np.array([(32, 24, 1), (32, 24, 9), (64, 64, 0), (32, 24, 5), (32, 24, 5), (24, 32, 5)])
    assert [batch.tolist() for batch in by_bucket(sizes, 10)] == [[1], [2], [5], [3, 4], [0]]
    assert by_bucket(np.zeros((0, 3), np.int32), 4) == []


def test_masks_become_weights_of_cells_with_mean_one() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, :4], mask[:4, 4:6] = 255, 255
    weights = cell_weights(mask, (2, 2), 0.0)
    assert np.allclose(weights, np.array([[1, 0.5], [0, 0]]) / 0.375) and weights.dtype == np.float32
    assert np.allclose(cell_weights(mask, (2, 2), 0.5), np.array([[1, 0.75], [0.5, 0.5]]) / 0.6875)
    assert not cell_weights(np.zeros_like(mask), (2, 2), 0.0).any()


def test_mask_and_pair_are_kept_beside_the_latents(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = []
    for name in ("a", "mask", "pair"):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
        records.append(Record(tmp_path / f"{name}.png", f"{name}.png", 64, 64))
    (item,) = expand(records[:1], [64], 16, Treatment(mask=MaskRule(min_value=0.2)))
    cache = RowCache()
    _encode([replace(item, mask=records[1], pair=records[2])], cache, _Encoder(), 4)
    row = cache.get(_key(item))
    with Image.open(tmp_path / "mask.png") as image:
        expected = cell_weights(np.asarray(image.convert("L")), (32, 32), 0.2)
    assert np.array_equal(row[MASK].numpy(), expected) and 0.9 < float(row[MASK].mean()) < 1.1
    with Image.open(tmp_path / "pair.png") as image:
        assert torch.equal(row[PAIR], _Encoder()(np.asarray(image)[None].copy())[0])


def test_texts_are_encoded_by_length(tmp_path: Path) -> None:
    calls: list[list[str]] = []

    def encode(texts: list[str]) -> list[dict[str, Tensor]]:
        calls.append(texts)
        return [{"tokens": torch.full((len(text), 2), float(len(text)))} for text in texts]

    progress: list[tuple[int, int]] = []
    texts = {key_for(text=text): text for text in ("ccc", "a", "bb", "")}
    encode_texts(texts, RowCache(tmp_path), encode, 2, lambda *done: progress.append(done))
    assert calls == [["", "a"], ["bb", "ccc"]]
    assert progress == [(2, 4), (4, 4)]
    assert RowCache(tmp_path).get(key_for(text="ccc"))["tokens"].shape == (3, 2)


def test_videos_are_encoded_in_batches_of_as_many_frames(tmp_path: Path, film: Callable[..., Path]) -> None:
    for number, count in enumerate((9, 9, 9, 17)):
        film(tmp_path / f"{number}.mp4", count)
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    rule = FrameRule(1, 4, fps=12, auto=True)
    items = list(expand(scan(tmp_path, videos=True).records, [32], 8, Treatment(frames=rule)))
    shapes: list[tuple[int, ...]] = []

    def encode(pixels: np.ndarray) -> Tensor:
        shapes.append(tuple(pixels.shape))
        return to_pixels(pixels)[:, :, ::4]

    cache = RowCache()
    keys = as_array(key_for(name=item.record.name) for item in items)
    rows = wanted(cache, keys, np.arange(5), np.zeros(5, np.int64))
    sizes = np.array([(*item.size, item.num_frames) for item in items])
    encode_images(items, rows, sizes, cache, encode, 10, THREADS)
    # up to ten frames at once, the longest first
    assert shapes == [(1, 9, 24, 32, 3), (2, 5, 24, 32, 3), (1, 5, 24, 32, 3), (1, 1, 24, 32, 3)]
    assert cache.get(key_for(name="3.mp4"))[LATENTS].shape == (3, 3, 24, 32)
    assert cache.get(key_for(name="a.png"))[LATENTS].shape == (3, 1, 24, 32)


def test_references_are_encoded_one_by_one_and_broken_ones_named(tmp_path: Path) -> None:
    items = _folder(tmp_path)
    (tmp_path / "refs").mkdir()
    for item in items:
        target = tmp_path / "refs" / item.record.name
        target.write_bytes(item.record.path.read_bytes())
    _break(tmp_path, "refs/2.png")
    given = [
        replace(item, references=References((replace(item.record, path=tmp_path / "refs" / item.record.name),)))
        for item in items
    ]
    cache, progress = RowCache(tmp_path / "c"), list[tuple[int, int]]()

    def encode(images: list[Image.Image], item: Item) -> dict[str, Tensor]:
        return {"size": torch.tensor(images[0].size), "target": torch.tensor(item.size)}

    keys = as_array(key_for(name=item.record.name) for item in given)
    rows = wanted(cache, keys, np.arange(len(given)), np.zeros(len(given), np.int64))
    broken = encode_references(given, rows, cache, encode, THREADS, lambda *done: progress.append(done))
    assert list(broken) == [key_for(name="2.png")] and "refs/2.png" in str(broken[key_for(name="2.png")])
    assert progress == [(number, 5) for number in range(1, 6)]
    assert len(cache) == 4 and cache.get(key_for(name="1.png"))["size"].tolist() == [64, 48]
