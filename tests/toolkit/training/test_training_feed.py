"""Batches: the same whatever the threads, the caches and the place where one starts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image

from extensions_built_in.flux.config import Flux
from toolkit.config.sections.dataset import DatasetSection
from toolkit.context import Context
from toolkit.data.cache.rows import RowCache
from toolkit.data.datasets import read_datasets
from toolkit.data.loader import FetchError, Position
from toolkit.data.pictures.pixels import item_pixels
from toolkit.training.batch import Batch
from toolkit.training.feed import Feed

Make = Callable[..., Feed]


def no_bar(title: str, total: int) -> Any:
    return nullcontext(lambda count: None)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Seven wide pictures of noise with captions of four parts."""
    folder, rng = tmp_path / "pictures", Random(0)
    folder.mkdir()
    for index in range(7):
        Image.frombytes("RGB", (52, 32), rng.randbytes(52 * 32 * 3)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"a cat, blue, detailed, number {index}")
    return folder


@pytest.fixture
def feed(tiny_flux: Path, cpu: Context, pictures: Path) -> Make:
    """Makes an encoded feed: `feed(cache=True, keep_texts=False, told=None, **keys of the data set)`."""

    def make(cache: bool = True, keep_texts: bool = False, told: list[str] | None = None, **keys: Any) -> Feed:
        model = Flux.model_validate({"arch": "flux", "name_or_path": str(tiny_flux)})
        family = model.build(cpu, checkpointing=False, bypass_guidance=False)
        section = DatasetSection.model_validate({"folder_path": str(pictures), "resolution": 32, **keys})
        data = read_datasets([section], family.facts.multiple, 3, None)
        lines: list[str] = [] if told is None else told
        images = RowCache() if cache else None
        made = Feed(family, cpu, data, images, RowCache(), keep_texts, tell=lines.append)
        lines += made.encode(no_bar)
        return made

    return make


def taken(feed: Feed, count: int, start: Position = Position(0, 0), num_workers: int = 0) -> list[tuple[Any, Batch]]:
    with ExitStack() as stack:
        batches = feed.batches(stack, start, num_workers, 2)
        return [next(batches) for _ in range(count)]


def same(one: list[tuple[Any, Batch]], other: list[tuple[Any, Batch]]) -> bool:
    def flat(batch: Batch) -> list[torch.Tensor]:
        return [batch.u, *batch.tensors()]

    return all(
        a[0] == b[0] and all(torch.equal(x, y) for x, y in zip(flat(a[1]), flat(b[1]), strict=True))
        for a, b in zip(one, other, strict=True)
    )


VARYING = {"random_crop": True, "shuffle_tokens": True, "caption_dropout_rate": 0.3}


def test_threads_do_not_change_batches(feed: Make) -> None:
    assert same(taken(feed(**VARYING), 5), taken(feed(**VARYING), 5, num_workers=3))


def test_a_start_in_the_middle_gives_the_rest(feed: Make) -> None:
    whole = taken(feed(**VARYING), 6)
    assert [position for position, _ in whole] == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    assert same(taken(feed(**VARYING), 3, start=whole[2][0]), whole[3:])


def test_an_epoch_holds_every_sample_once_and_noise_is_new_in_the_next(feed: Make) -> None:
    batches = taken(feed(), 6)
    epochs = [torch.cat([batch.latents for _, batch in batches[i : i + 3]]) for i in (0, 3)]
    rows = [sorted(map(tuple, latents.flatten(1).tolist())) for latents in epochs]
    assert len(set(rows[0])) == 7 and rows[0] == rows[1]
    noise = torch.cat([batch.noise for _, batch in batches]).flatten(1)
    assert len({tuple(row) for row in noise.tolist()}) == 14
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05


def test_a_sample_keeps_its_noise_in_every_batch_that_holds_it(feed: Make) -> None:
    made = feed()
    alone, together = made.assembly.fetch(2, [4]), made.assembly.fetch(2, [1, 4, 6])
    assert torch.equal(alone.noise[0], together.noise[1]) and alone.u[0] == together.u[1]


def test_without_a_cache_every_epoch_draws_a_new_crop(feed: Make) -> None:
    made = feed(cache=False, random_crop=True, num_variants=2)
    pixels = [made.assembly.fetch(epoch, [0]).pixels for epoch in range(3)]
    assert all(each is not None for each in pixels) and len({each.tobytes() for each in pixels}) == 3
    assert made.parts_in_use() == ["vae"]


def test_cached_crops_take_turns_and_are_announced(feed: Make) -> None:
    told: list[str] = []
    made = feed(random_crop=True, num_variants=3, told=told)
    assert made.parts_in_use() == []
    for index in range(len(made.data)):
        latents = [made.assembly.fetch(epoch, [index]).latents for epoch in range(6)]
        for epoch, found in enumerate(latents):
            item, version = made.data[index], epoch % 3
            with made.family.parts.using("vae"), torch.no_grad():
                expected = made.picture_rows.latents(item_pixels(item, 42, version)[None])
            assert found is not None and torch.allclose(found, expected, atol=1e-5)
    assert len({tuple(found.flatten().tolist()) for found in latents}) == 3
    assert any("pictures vary: 3 versions" in line for line in told)


def test_parts_stay_loaded_only_for_what_is_not_ahead(feed: Make) -> None:
    texts = ["tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2"]
    assert feed().parts_in_use() == []
    assert feed(cache=False).parts_in_use() == ["vae"]
    assert feed(shuffle_tokens=True).parts_in_use() == texts
    assert feed(shuffle_tokens=True, keep_texts=True).parts_in_use() == []


def test_cached_captions_take_turns_and_are_announced(feed: Make) -> None:
    told: list[str] = []
    made = feed(shuffle_tokens=True, keep_texts=True, num_variants=8, told=told)
    texts = [made.assembly.fetch(epoch, [0]).texts[0] for epoch in range(16)]
    assert len(set(texts)) > 1 and texts[:8] == texts[8:]
    assert any("captions vary: 8 versions" in line for line in told)


def test_a_dropped_caption_is_the_row_of_the_empty_text(feed: Make) -> None:
    made = feed(caption_dropout_rate=1.0)
    fetched = made.assembly.fetch(0, [0])
    assert fetched.texts == [""] and fetched.rows is not None
    assert torch.equal(fetched.rows[0]["text"], made.text_row("", negative=True)["text"])


@pytest.mark.parametrize("cache", [True, False])
def test_a_broken_picture_is_left_out_of_its_batch_and_named_once(feed: Make, pictures: Path, cache: bool) -> None:
    broken = pictures / "3.png"
    broken.write_bytes(broken.read_bytes()[:300])
    told: list[str] = []
    made = feed(cache=cache, told=told)
    if cache:
        assert len(made.data) == 6
    else:
        assert [item.record.name for item in made.assembly.fetch(0, [2, 3, 4]).items] == ["2.png", "4.png"]
    taken(made, 6)
    assert len([line for line in told if str(broken) in line]) == 1


def test_strict_and_nothing_but_broken_pictures_end_the_run(feed: Make, pictures: Path) -> None:
    for path in pictures.glob("*.png"):
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(FetchError, match=r"batch 0 of epoch 0 .*\.png"):
        taken(feed(cache=False, strict=True), 1)
    with pytest.raises(FetchError, match="no image is left to train on"):
        taken(feed(cache=False), 1)
    with pytest.raises(ValueError, match="no image is left to train on"):
        feed(cache=True)
