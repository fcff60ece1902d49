"""What comes with the pictures of a batch: masks, pairs, regularization pictures, remarks about captions; and keys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from extensions_built_in.flux.config import Flux
from toolkit.context import Context
from toolkit.data.cache.encode import cell_weights
from toolkit.data.cache.rows import RowCache
from toolkit.data.items import DatasetItems, Items
from toolkit.data.loader import Position
from toolkit.data.pictures.decoding import Wish, decode
from toolkit.data.pictures.masks import MaskRule
from toolkit.data.records import ListedRecords, Record
from toolkit.data.treatment import Treatment
from toolkit.data.workers import Workers
from toolkit.models.family import Family
from toolkit.training.batch import Batch
from toolkit.training.feed import Feed
from toolkit.training.picture_rows import PictureRows
from toolkit.training.text_length import too_long
from toolkit.training.text_rows import Prompt, TextRows

Make = Callable[..., Feed]


def no_bar(title: str, total: int) -> Any:
    return nullcontext(lambda count: None)


@pytest.fixture
def family(tiny_flux: Path, cpu: Context) -> Family:
    model = Flux.model_validate({"arch": "flux", "name_or_path": str(tiny_flux)})
    return model.build(cpu, checkpointing=False, bypass_guidance=False)


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """Six pictures of two sizes; the last three go with the first three as masks or pairs."""
    found = []
    for number, size in enumerate([(64, 32), (32, 32), (64, 32)] * 2):
        pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        found.append(Record(tmp_path / f"{number}.png", f"{number}.png", *size, caption=f"number {number}"))
    return found


def dataset(records: list[Record], treatment: Treatment, **more: Any) -> DatasetItems:
    def size_of(width: int, height: int, resolution: int) -> tuple[int, int]:
        return (width, height)

    return DatasetItems(ListedRecords(records), [32], size_of, treatment, **more)


@pytest.fixture
def feed(family: Family, cpu: Context) -> Make:
    """Makes an encoded feed of data sets: `feed(*datasets, cache=True, workers=None)`."""

    def make(*datasets: DatasetItems, cache: bool = True, workers: Workers | None = None) -> Feed:
        data, images = Items(datasets), RowCache() if cache else None
        made = Feed(family, cpu, data, images, RowCache(), False, lambda line: None, workers=workers)
        made.encode(no_bar)
        return made

    return make


def taken(feed: Feed, count: int, start: Position = Position(0, 0)) -> list[tuple[Position, Batch]]:
    with ExitStack() as stack:
        batches = feed.batches(stack, start, 2, 2)
        return [next(batches) for _ in range(count)]


@pytest.mark.parametrize("cache", [True, False])
def test_masks_weigh_cells_and_samples_without_one_count_evenly(feed: Make, records: list[Record], cache: bool) -> None:
    masked = Treatment(dataset=0, batch_size=2, mask=MaskRule(min_value=0.25))
    plain = Treatment(dataset=1, batch_size=2)
    made = feed(dataset(records[:1], masked, masks=records[3:4]), dataset(records[2:3], plain), cache=cache)
    ((_, batch),) = taken(made, 1)
    assert batch.mask is not None and batch.mask.shape == (2, 1, 16, 32)
    gray = np.asarray(Image.open(records[3].path).convert("L"))
    expected = {"number 0": cell_weights(gray, (16, 32), 0.25), "number 2": np.ones((16, 32), np.float32)}
    for text, mask in zip(batch.texts, batch.mask, strict=True):
        assert np.allclose(mask[0].numpy(), expected[text], atol=1e-6)
    assert taken(feed(dataset(records[:3], plain), cache=cache), 1)[0][1].mask is None


@pytest.mark.parametrize("cache", [True, False])
def test_pairs_come_with_their_pictures_and_apart_from_others(feed: Make, records: list[Record], cache: bool) -> None:
    paired = Treatment(dataset=0, batch_size=2, guidance_type="targeted")
    plain = Treatment(dataset=1, batch_size=2)
    made = feed(dataset(records[:1], paired, pairs=records[3:4]), dataset(records[2:3], plain), cache=cache)
    batches = {batch.texts: batch for _, batch in taken(made, 2)}
    pair = decode(Wish(replace(made.data[0], record=records[3], pair=None)))
    with made.family.parts.using("vae"), torch.no_grad():
        expected = made.picture_rows.latents(pair.pixels[None])  # type: ignore[union-attr, index]
    found = batches["number 0",].pair_latents
    assert found is not None and torch.allclose(found, expected.float(), atol=1e-5)
    assert batches["number 2",].pair_latents is None


def test_a_batch_of_regularization_pictures_follows_every_other_batch(feed: Make, records: list[Record]) -> None:
    train = dataset(records[:4], Treatment(dataset=0, batch_size=1))
    reg = dataset(records[4:], Treatment(dataset=1, batch_size=1, weight=0.5, is_reg=True))
    made = feed(train, reg)
    batches = taken(made, 16)
    is_reg = [batch.weight.item() == 0.5 for _, batch in batches]
    assert is_reg == [False, True] * 8
    assert [position for position, _ in batches[:8]] == [(0, number) for number in range(1, 8)] + [(1, 0)]
    # two pictures, so that each comes up in every cycle; what is drawn for them differs from cycle to cycle
    seen = [batch for _, batch in batches[1::2]]
    assert all(
        {one.texts, other.texts} == {("number 4",), ("number 5",)}
        for one, other in zip(seen[::2], seen[1::2], strict=True)
    )
    assert len({batch.u.item() for batch in seen}) == len(seen)
    rest = taken(made, 11, start=batches[4][0])
    assert all(torch.equal(one[1].noise, two[1].noise) for one, two in zip(rest, batches[5:], strict=True))


def test_keys_of_all_samples_are_those_of_each(family: Family, cpu: Context, records: list[Record]) -> None:
    datasets = [
        dataset(records, Treatment(dataset=0), flip_x=True, repeats=2),
        dataset(records, Treatment(dataset=1, random_crop=True, num_variants=3), repeats=2),
        dataset(records[:3], Treatment(dataset=2, mask=MaskRule()), masks=records[3:]),
        dataset(records[:3], Treatment(dataset=3, guidance_type="targeted"), pairs=records[3:]),
    ]
    data = Items(datasets)
    rows = PictureRows(family, cpu, data, RowCache(), RowCache(), Workers(0))
    places = np.arange(len(data))
    for epoch in range(4):
        keys = [key.tobytes() for key in rows.keys.at(places, epoch)]
        assert keys == [rows.image_key(item, epoch) for item in data]
    keys, _, _ = rows.keys.all()
    # 6 x 2 mirrored, their repeats the same; 6 x 2 x 3 versions; masks and pairs make rows of their own
    assert len(keys) == 24 + 12 * 3 + 3 + 3 and len(np.unique(keys, axis=0)) == 12 + 36 + 3 + 3
    rows.leave_out(data.without([0, 5]), [0, 5])
    assert len(rows.keys) == len(data) - 2
    assert rows.keys.at([4], 0)[0].tobytes() == rows.image_key(data[6])


def changed(folder: Path, name: str, key: str, value: object) -> Path:
    """The folder of a model after one value of one of its JSON files was changed."""
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    return folder


def test_another_encoder_or_precision_finds_nothing(tiny_flux: Path, cpu: Context, tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    Image.new("RGB", (32, 32)).save(path)
    data = Items([dataset([Record(path, "one.png", 32, 32)], Treatment())])

    def keys(folder: Path, context: Context = cpu) -> tuple[bytes, bytes]:
        model = Flux.model_validate({"arch": "flux", "name_or_path": str(folder)})
        family = model.build(cpu, checkpointing=False, bypass_guidance=False)
        rows = PictureRows(family, context, data, RowCache(), RowCache(), Workers(0))
        return rows.image_key(data[0]), TextRows(family, context, RowCache()).key(Prompt("a cat"))

    other = Path(shutil.copytree(tiny_flux, tmp_path / "other"))
    image, text = keys(tiny_flux)
    assert keys(other) == (image, text)
    half = keys(tiny_flux, replace(cpu, dtype=torch.bfloat16))
    assert half[0] != image and half[1] != text
    found = keys(changed(other, "vae/config.json", "scaling_factor", 0.5))
    assert found[0] != image and found[1] == text
    found = keys(changed(other, "tokenizer/tokenizer_config.json", "model_max_length", 9))
    assert found[1] != text


def test_other_seeds_sizes_and_rules_find_nothing(family: Family, cpu: Context, records: list[Record]) -> None:
    def key(treatment: Treatment, seed: int = 1) -> bytes:
        context = replace(cpu, seed=seed)
        data = Items([dataset(records[:1], treatment)])
        return PictureRows(family, context, data, RowCache(), RowCache(), Workers(0)).image_key(data[0])

    plain, random = Treatment(), Treatment(random_crop=True)
    assert key(plain) == key(plain, seed=2) and key(random) != key(random, seed=2) and key(plain) != key(random)
    assert key(plain) != key(replace(plain, background=(0, 0, 0)))


def test_a_picture_that_is_gone_is_left_out_once_and_for_all(feed: Make, records: list[Record]) -> None:
    records[1].path.unlink()
    made = feed(dataset(records, Treatment(batch_size=8)))
    assert [item.record.name for item in made.data] == [f"{number}.png" for number in (0, 2, 3, 4, 5)]
    assert made.encode(no_bar) == [] and len(made.data) == 5


def test_a_broken_picture_of_an_archive_leaves_the_others(feed: Make, records: list[Record], tmp_path: Path) -> None:
    archive, contents = tmp_path / "all.tar", [record.path.read_bytes() for record in records[:3]]
    contents[1] = contents[1][:100]
    archive.write_bytes(b"".join(contents))
    starts = [sum(map(len, contents[:number])) for number in range(3)]
    packed = [
        replace(record, path=archive, part=(start, len(content)))
        for record, start, content in zip(records[:3], starts, contents, strict=True)
    ]
    told: list[str] = []
    made = feed(dataset(packed, Treatment(batch_size=4)), cache=False)
    made.tell = told.append
    assert [item.record.name for item in made.assembly.fetch(0, [0, 1, 2]).items] == ["0.png", "2.png"]
    assert len(made.assembly.fetch(1, [0, 1, 2]).items) == 2 and len(told) == 1
    with pytest.raises(ValueError, match="no image is left"):
        feed(dataset(packed[1:2], Treatment()), cache=False).assembly.fetch(0, [0])


def test_workers_do_not_change_batches(feed: Make, tmp_path: Path) -> None:
    paths = [tmp_path / f"large{number}.png" for number in range(2)]
    for number, path in enumerate(paths):
        Image.new("RGB", (4096, 4096), (99 * number, 7, 8)).save(path)
    large = dataset([Record(path, path.name, 4096, 4096) for path in paths], Treatment())
    with Workers(1) as workers:
        made = feed(large, cache=False, workers=workers)
        found = made.assembly.fetch(0, [1]).pixels
        assert len(workers._shared.processes) == 1
    alone = feed(large, cache=False, workers=Workers(0)).assembly.fetch(0, [1]).pixels
    assert found is not None and alone is not None and np.array_equal(found, alone)


def test_captions_that_the_text_encoder_cuts_are_counted(feed: Make, family: Family, records: list[Record]) -> None:
    with family.parts.using(*family.needs["encode_prompt"]):
        limit = max(family.parts[name].model_max_length for name in ("tokenizer", "tokenizer_2"))
        long = "cat " * (limit + 10)
        (line,) = too_long(family, ["short", long, long + "cat"])
        assert (
            line.startswith(f"captions that are longer than the {limit} tokens")
            and "ends: 2 (first" in line
            and "cat cat" in line
        )
        assert too_long(family, ["short"]) == []
    made = feed(dataset([replace(records[0], caption=long)], Treatment()))
    assert made.encode(no_bar) == []
    made.text_rows.cache = RowCache()
    assert any("ends: 1 (first" in problem for problem in made.encode(no_bar))
