"""Filling the caches: each thing once, by buckets, and broken files by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from toolkit.data.cache import RowCache, key_for
from toolkit.data.encode import LATENTS, encode_images, encode_references, encode_texts
from toolkit.data.frames import FrameRule
from toolkit.data.image import to_pixels
from toolkit.data.items import Item, expand
from toolkit.data.pixels import item_pixels
from toolkit.data.references import References
from toolkit.data.scan import scan


def _key(item: Item) -> str:
    return key_for(content=item.record.sha, size=item.size, box=item.box(), flip=(item.flip_x, item.flip_y))


def _folder(folder: Path, count: int = 5) -> list[Item]:
    rng = np.random.default_rng(0)
    for number in range(count):
        shape = (48, 64, 3) if number % 2 else (64, 64, 3)
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(folder / f"{number}.png")
    return expand(scan(folder).records, [64], 16, repeats=2)


def _break(folder: Path, name: str) -> None:
    """Cut a picture in its body, behind the header that the scan reads."""
    (folder / name).write_bytes((folder / name).read_bytes()[:-2000])


class _Encoder:
    """Halves the sides; keeps what it was given."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, pixels: Tensor) -> Tensor:
        self.shapes.append(tuple(pixels.shape))
        return torch.nn.functional.avg_pool2d(pixels, 2)


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_every_picture_is_encoded_once_in_batches_of_a_bucket(tmp_path: Path, num_workers: int) -> None:
    items, encode, cache, progress = _folder(tmp_path), _Encoder(), RowCache(tmp_path / "c"), []
    dropped = encode_images(items, cache, encode, 2, _key, lambda *done: progress.append(done), num_workers=num_workers)
    assert dropped == []
    # the two repeats of an item share their row; large pictures go first
    assert encode.shapes == [(2, 3, 64, 64), (1, 3, 64, 64), (2, 3, 48, 64)]
    assert progress == [(2, 5), (3, 5), (5, 5)]
    for item in items:
        expected = _Encoder()(to_pixels(item_pixels(item)[None]))[0]
        assert torch.equal(RowCache(tmp_path / "c").get(_key(item))[LATENTS], expected)


def test_what_is_cached_is_not_encoded_again(tmp_path: Path) -> None:
    items, encode = _folder(tmp_path), _Encoder()
    encode_images(items[:4], RowCache(tmp_path / "c"), encode, 8, _key)
    encode.shapes.clear()
    encode_images(items, RowCache(tmp_path / "c"), encode, 8, _key)
    assert sum(shape[0] for shape in encode.shapes) == 3
    encode.shapes.clear()
    encode_images(items, RowCache(tmp_path / "c"), encode, 8, _key)
    assert encode.shapes == []


def test_a_changed_picture_is_encoded_again(tmp_path: Path) -> None:
    items, encode = _folder(tmp_path), _Encoder()
    encode_images(items, RowCache(tmp_path / "c"), encode, 8, _key)
    encode.shapes.clear()
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    changed = expand(scan(tmp_path).records, [64], 16)
    encode_images(changed, RowCache(tmp_path / "c"), encode, 8, _key)
    assert encode.shapes == [(1, 3, 64, 64)]


def test_broken_pixels_are_named_once_and_their_items_dropped(tmp_path: Path) -> None:
    items, cache = _folder(tmp_path), RowCache(tmp_path / "c")
    problems: list[str] = []
    _break(tmp_path, "2.png")
    dropped = encode_images(items, cache, _Encoder(), 4, _key, problems=problems)
    assert dropped == ["0:2.png@64#0", "0:2.png@64#1"]
    assert len(problems) == 1 and str(tmp_path / "2.png") in problems[0] and problems[0].endswith("left out")
    assert len(cache) == 4


def test_a_picture_that_is_gone_counts_as_broken(tmp_path: Path) -> None:
    items = _folder(tmp_path)
    problems: list[str] = []
    (tmp_path / "1.png").unlink()
    assert len(encode_images(items, RowCache(), _Encoder(), 4, _key, problems=problems)) == 2
    assert problems == [f"{tmp_path / '1.png'}: No such file or directory; left out"]


def test_strict_names_all_broken_pictures_and_keeps_the_good_ones(tmp_path: Path) -> None:
    items = _folder(tmp_path)
    _break(tmp_path, "1.png")
    _break(tmp_path, "2.png")
    with pytest.raises(ValueError, match=r"(?s)[12]\.png.*[12]\.png"):
        encode_images(items, RowCache(tmp_path / "c"), _Encoder(), 4, _key, strict=True)
    assert len(RowCache(tmp_path / "c")) == 3


def test_rows_made_before_an_interrupt_are_kept(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_images(_folder(tmp_path), RowCache(tmp_path / "c"), _Encoder(), 2, _key, stop)
    assert len(RowCache(tmp_path / "c")) == 2


def test_texts_are_encoded_once_each(tmp_path: Path) -> None:
    calls: list[list[str]] = []

    def encode(texts: list[str]) -> list[dict[str, Tensor]]:
        calls.append(texts)
        return [{"tokens": torch.full((len(text), 2), float(len(text)))} for text in texts]

    progress: list[tuple[int, int]] = []
    texts = ["ccc", "a", "bb", "a", ""]
    for _ in range(2):
        encode_texts(
            texts, RowCache(tmp_path), encode, 2, lambda text: key_for(text=text), lambda *done: progress.append(done)
        )
    assert calls == [["", "a"], ["bb", "ccc"]]
    assert progress == [(2, 4), (4, 4)]
    assert RowCache(tmp_path).get(key_for(text="ccc"))["tokens"].shape == (3, 2)


def test_videos_are_encoded_in_batches_of_as_many_frames(tmp_path: Path, film: Callable[..., Path]) -> None:
    for number, count in enumerate((9, 9, 9, 17)):
        film(tmp_path / f"{number}.mp4", count)
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    items = expand(scan(tmp_path, videos=True).records, [32], 8, frames=FrameRule(1, 4, fps=12, auto=True))
    shapes: list[tuple[int, ...]] = []

    def encode(pixels: Tensor) -> Tensor:
        shapes.append(tuple(pixels.shape))
        return pixels[:, :, ::4]

    cache = RowCache()
    encode_images(items, cache, encode, 10, lambda item: key_for(content=item.record.path.name))
    # up to ten frames at once, the longest first
    assert shapes == [(1, 3, 9, 24, 32), (2, 3, 5, 24, 32), (1, 3, 5, 24, 32), (1, 3, 1, 24, 32)]
    assert cache.get(key_for(content="3.mp4"))[LATENTS].shape == (3, 3, 24, 32)
    assert cache.get(key_for(content="a.png"))[LATENTS].shape == (3, 1, 24, 32)


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
    cache, problems, progress = RowCache(tmp_path / "c"), list[str](), list[tuple[int, int]]()

    def encode(images: list[Image.Image], item: Item) -> dict[str, Tensor]:
        return {"size": torch.tensor(images[0].size), "target": torch.tensor(item.size)}

    def key(item: Item) -> str:
        return key_for(name=item.record.name)

    dropped = encode_references(given, cache, encode, key, lambda *done: progress.append(done), problems=problems)
    assert dropped == ["0:2.png@64#0", "0:2.png@64#1"]
    assert len(problems) == 1 and "refs/2.png" in problems[0]
    assert progress == [(number, 5) for number in range(1, 6)]
    assert len(cache) == 4 and cache.get(key(items[2]))["size"].tolist() == [64, 48]
    with pytest.raises(ValueError, match=r"refs/2\.png"):
        encode_references(given, cache, encode, key, strict=True)
