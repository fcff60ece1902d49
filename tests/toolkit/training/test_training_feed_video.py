"""Batches of video: frames, buckets, first frames and caches, with the real tiny Wan."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from extensions_built_in.wan.config import Wan21, Wan22Small
from extensions_built_in.wan.tiny import save_tiny
from toolkit.config.sections.dataset import DatasetSection
from toolkit.context import Context
from toolkit.data.cache.rows import RowCache
from toolkit.data.datasets import read_datasets
from toolkit.data.loader import Position
from toolkit.data.pictures.image import to_pixels
from toolkit.data.pictures.pixels import item_pixels
from toolkit.training.batch import Batch
from toolkit.training.feed import Feed

Make = Callable[..., Feed]
FRAMES = {"num_frames": 5}


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("wan") / "t2v")


@pytest.fixture(scope="module")
def wan_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("wan") / "5b", small=True)


@pytest.fixture
def videos(tmp_path: Path, film: Callable[..., Path]) -> Path:
    """Four videos of two lengths and a picture, all of one size."""
    folder = tmp_path / "videos"
    for index, count in enumerate((9, 17, 9, 17)):
        film(folder / f"{index}.mp4", count, size=(32, 32))
        (folder / f"{index}.txt").write_text(f"video {index}")
    Image.new("RGB", (32, 32), (200, 90, 10)).save(folder / "still.png")
    return folder


def no_bar(title: str, total: int) -> Any:
    return nullcontext(lambda count: None)


@pytest.fixture
def feed(wan: Path, wan_small: Path, cpu: Context, videos: Path) -> Make:
    """Makes an encoded feed: `feed(small=False, cache=True, told=None, bar=no_bar, **keys of the data set)`."""

    def make(small: bool = False, cache: bool = True, bar: Any = no_bar, caches: Any = None, **keys: Any) -> Feed:
        plugin, path = (Wan22Small, wan_small) if small else (Wan21, wan)
        arch = "wan22_5b" if small else "wan21"
        model = plugin.model_validate({"arch": arch, "name_or_path": str(path)})
        family = model.build(cpu, checkpointing=False, bypass_guidance=False)
        section = DatasetSection.model_validate({"folder_path": str(videos), "resolution": 32, **FRAMES, **keys})
        data = read_datasets([section], family.facts.multiple, 2, None, taken=family.facts)
        images, conditions = caches or (RowCache() if cache else None, RowCache())
        made = Feed(family, cpu, data, images, RowCache(), False, lambda line: None, conditions=conditions)
        made.encode(bar)
        return made

    return make


def taken(feed: Feed, count: int) -> list[Batch]:
    with ExitStack() as stack:
        batches = feed.batches(stack, Position(0, 0), 0, 2)
        return [next(batches)[1] for _ in range(count)]


def test_latents_are_those_of_the_chosen_frames(feed: Make) -> None:
    made = feed()
    item = next(item for item in made.data if item.record.name == "1.mp4")
    pixels = item_pixels(item)
    assert [round(float(frame[:, 12:].mean()) / 4) for frame in pixels] == [0, 4, 8, 12, 16]
    with made.family.parts.using("vae"), torch.no_grad():
        expected = made.family.encode_image(to_pixels(pixels[None]))
    fetched = made.assembly.fetch(0, [made.data.index(item)])
    assert fetched.latents is not None and fetched.latents.shape == (1, 4, 2, 8, 8)
    assert torch.allclose(fetched.latents, expected, atol=1e-5)
    assert fetched.noise.shape == fetched.latents.shape


def test_a_cache_changes_nothing(feed: Make) -> None:
    cached, fresh = taken(feed(), 6), taken(feed(cache=False), 6)
    for one, other in zip(cached, fresh, strict=True):
        assert one.texts == other.texts
        assert torch.allclose(one.latents, other.latents, atol=1e-5) and torch.equal(one.noise, other.noise)


def test_frames_do_not_mix_in_a_batch_and_every_sample_comes_once(feed: Make) -> None:
    made = feed(num_frames=1, auto_frame_count=True)
    batches = taken(made, 3)
    assert sorted(tuple(batch.latents.shape) for batch in batches) == [
        (1, 4, 1, 8, 8),
        (2, 4, 3, 8, 8),
        (2, 4, 5, 8, 8),
    ]
    assert sorted(text for batch in batches for text in batch.texts) == ["", *(f"video {index}" for index in range(4))]


def test_parts_of_a_video_have_latents_of_their_own(feed: Make) -> None:
    made = feed(shrink_video_to_frames=False, num_repeats=3, fps=24)
    parts = [item for item in made.data if item.record.name == "1.mp4"]
    keys = {made.image_key(item) for item in parts}
    assert len(keys) == 3
    stills = [item for item in made.data if item.record.name == "still.png"]
    assert len({made.image_key(item) for item in stills}) == 1


def test_the_first_frame_is_given_and_kept(feed: Make) -> None:
    titles: list[str] = []

    def bar(title: str, total: int) -> Any:
        titles.append(f"{title}: {total}")
        return nullcontext(lambda count: None)

    caches = (RowCache(), RowCache())
    made = feed(small=True, do_i2v=True, bar=bar, caches=caches)
    # the black edge tells the videos from each other only by length, so two share latents and frames
    assert any(title.startswith("encoding references") for title in titles)
    batches = taken(made, 3)
    for batch in batches:
        given = batch.cond.get("given")
        assert (given is None) == (batch.latents.shape[2] == 1)
        if given is not None:
            assert given.shape == (*batch.latents.shape[:2], 1, *batch.latents.shape[3:])
            # causal: the first latent frame knows the first frame alone
            assert torch.allclose(given, batch.latents[:, :, :1], atol=1e-4)
    titles.clear()
    feed(small=True, do_i2v=True, bar=bar, caches=caches)
    assert not any("images" in title or "references" in title for title in titles)


def test_random_crops_take_the_first_frame_of_their_own_crop(feed: Make, videos: Path, film: Any) -> None:
    for path in videos.iterdir():
        path.unlink()
    film(videos / "wide.mp4", 9, size=(96, 32))
    made = feed(small=True, cache=False, do_i2v=True, random_crop=True)
    assert made.parts_in_use() == ["vae"]
    edges = set()
    for epoch in range(6):
        fetched = made.assembly.fetch(epoch, [0])
        (pictures,) = fetched.conditions
        assert isinstance(pictures, list) and fetched.pixels is not None
        first = to_pixels(np.asarray(pictures[0])[None])
        assert torch.equal(first, to_pixels(fetched.pixels[:, 0]))
        edges.add(int(fetched.pixels[0, 0, 1, 0].sum()))
    with made.family.parts.using("vae"):
        batch = made.assembly.finish(made.assembly.fetch(0, [0]))
    assert torch.allclose(batch.cond["given"], batch.latents[:, :, :1], atol=1e-4)


def test_a_video_that_breaks_is_left_out(feed: Make, videos: Path) -> None:
    path = videos / "1.mp4"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert len(feed().data) == 4
    told: list[str] = []
    made = feed(cache=False)
    made.tell = told.append
    assert sorted(len(batch) for batch in taken(made, 3)) == [1, 1, 2]
    assert len(told) == 1 and "1.mp4" in told[0] and told[0].endswith("left out")
