"""Batches with reference pictures, numbers and live captions, with the real tiny models that take them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image

from extensions_built_in.flux import tiny as flux
from extensions_built_in.flux.config import FluxControl, FluxKontext
from extensions_built_in.qwen_image import tiny as qwen
from extensions_built_in.qwen_image.config import QwenImageEditPlus
from extensions_built_in.stable_diffusion import tiny as stable_diffusion
from extensions_built_in.stable_diffusion.config import Sdxl
from toolkit.config.sections.dataset import DatasetSection
from toolkit.context import Context
from toolkit.data.cache.rows import RowCache
from toolkit.data.datasets import read_datasets
from toolkit.data.loader import Position
from toolkit.data.pictures.pixels import item_references
from toolkit.models.conditions import collate
from toolkit.training.batch import Batch
from toolkit.training.feed import Feed

Make = Callable[..., Feed]
OPTIONS = {"control_image_max_pixels": 32 * 32}
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "kontext": (FluxKontext, flux.save_tiny, {"arch": "flux_kontext", "model_kwargs": OPTIONS}),
    "control": (
        FluxControl,
        lambda folder: flux.save_tiny(folder, pipeline="FluxControlPipeline", control_channels=4),
        {"arch": "flux_control"},
    ),
    "edit": (
        QwenImageEditPlus,
        lambda folder: qwen.save_tiny(folder, edit=True),
        {"arch": "qwen_image_edit_plus", "model_kwargs": {**OPTIONS, "vlm_max_pixels": 28 * 28 * 4}},
    ),
    "sdxl": (Sdxl, stable_diffusion.save_tiny_xl, {"arch": "sdxl"}),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model, written when first asked for."""
    folder = tmp_path_factory.mktemp("tiny")

    def get(kind: str) -> Path:
        path = folder / kind
        return path if path.exists() else KINDS[kind][1](path)

    return get


def noise(path: Path, size: tuple[int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.frombytes("RGB", size, Random(seed).randbytes(size[0] * size[1] * 3)).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """`set`: five pictures of 48x32 with captions; `refs`: one for each, of two sizes."""
    for index in range(5):
        noise(tmp_path / "set" / f"{index}.png", (48, 32), index)
        (tmp_path / "set" / f"{index}.txt").write_text(f"a cat, number {index}")
        noise(tmp_path / "refs" / f"{index}.png", (64, 32) if index < 3 else (32, 64), 10 + index)
    return tmp_path


@pytest.fixture
def feed(checkpoint: Callable[[str], Path], cpu: Context, pictures: Path) -> Make:
    """Makes an encoded feed: `feed(kind, cache=True, live=False, bar=no_bar, caches=None, options="", **keys)`."""

    def make(
        kind: str,
        cache: bool = True,
        live: bool = False,
        bar: Any = no_bar,
        caches: Any = None,
        options: str = "",
        **keys: Any,
    ) -> Feed:
        plugin, _, values = KINDS[kind]
        model = plugin.model_validate({**values, "name_or_path": str(checkpoint(kind))})
        family = model.build(cpu, checkpointing=False, bypass_guidance=False)
        references = {} if kind == "sdxl" else {"control_path": str(pictures / "refs")}
        keys = {"folder_path": str(pictures / "set"), "resolution": 32, **references, **keys}
        data = read_datasets([DatasetSection.model_validate(keys)], family.facts.multiple, 4, None, taken=family.facts)
        images, conditions, texts = caches or (RowCache() if cache else None, RowCache(), RowCache())
        made = Feed(
            family,
            cpu,
            data,
            images,
            texts,
            False,
            lambda line: None,
            conditions=conditions,
            live_texts=live,
            options=options,
        )
        made.encode(bar)
        return made

    return make


def no_bar(title: str, total: int) -> Any:
    return nullcontext(lambda count: None)


class Titles(list[str]):
    """Keeps what bars are called."""

    def __call__(self, title: str, total: int) -> Any:
        self.append(f"{title}: {total}")
        return nullcontext(lambda count: None)


def taken(feed: Feed, count: int) -> list[Batch]:
    with ExitStack() as stack:
        batches = feed.batches(stack, Position(0, 0), 0, 2)
        return [next(batches)[1] for _ in range(count)]


def test_references_of_two_sizes_are_encoded_once_and_never_share_a_batch(feed: Make) -> None:
    titles = Titles()
    caches = (RowCache(), RowCache(), RowCache())
    made = feed("kontext", bar=titles, caches=caches, num_repeats=2)
    assert "encoding references: 5" in titles
    plan = made.plan_for(0)
    sizes = [{made.data[i].references.pictures[0].width for i in batch} for batch in plan]
    assert all(len(each) == 1 for each in sizes) and sorted(map(len, plan)) == [2, 4, 4]
    batches = taken(made, 3)
    (wide, high), *rest = {tuple(batch.cond["reference.0"].shape[2:]) for batch in batches}
    assert rest == [(high, wide)] and wide != high
    titles.clear()
    feed("kontext", bar=titles, caches=caches)
    assert titles == []


def test_a_row_is_that_of_its_own_pictures(feed: Make) -> None:
    made = feed("kontext", flip_x=True)
    for index, item in enumerate(made.data):
        shape = made.picture_rows.latent_shape(item)
        with made.family.parts.using("vae"), torch.no_grad():
            expected = made.family.encode_condition(item_references(item), shape)
        (row,) = made.assembly.fetch(0, [index]).conditions
        assert isinstance(row, dict) and torch.equal(row["reference.0"], expected["reference.0"])
    keys = {made.picture_rows.condition_key(item) for item in made.data}
    assert len(keys) == len(made.data) == 10


def test_changed_references_are_encoded_again(feed: Make, pictures: Path) -> None:
    caches = (RowCache(), RowCache(), RowCache())
    feed("kontext", caches=caches)
    noise(pictures / "refs" / "0.png", (64, 32), 99)
    titles = Titles()
    feed("kontext", caches=caches, bar=titles)
    assert titles == ["encoding references: 1"]


@pytest.mark.parametrize("kind", ["kontext", "edit"])
def test_references_are_read_ahead_and_not_for_every_batch(feed: Make, pictures: Path, kind: str) -> None:
    made = feed(kind, caption_dropout_rate=0.5)
    expected = taken(made, 3)
    for path in (pictures / "refs").iterdir():
        path.unlink()
    for one, other in zip(taken(made, 3), expected, strict=True):
        assert all(torch.equal(tensor, same) for tensor, same in zip(one.tensors(), other.tensors(), strict=True))


def test_another_way_of_encoding_finds_nothing_in_the_caches(feed: Make) -> None:
    caches = (RowCache(), RowCache(), RowCache())
    feed("kontext", caches=caches)
    titles = Titles()
    feed("kontext", caches=caches, bar=titles, options="match_target_res")
    assert titles == ["encoding references: 5", "encoding captions: 6"]
    titles.clear()
    # the same weights and pictures, but another use of them
    feed("control", caches=caches, bar=titles)
    assert "encoding references: 5" in titles


def test_channels_follow_random_crops(feed: Make, pictures: Path) -> None:
    # no size of the model has this aspect, so that something is cropped
    noise(pictures / "set" / "0.png", (53, 32), 0)
    made = feed("control", cache=False, random_crop=True)
    assert made.parts_in_use() == ["vae"]
    (one,), (other,) = made.assembly.fetch(0, [0]).conditions, made.assembly.fetch(1, [0]).conditions
    assert isinstance(one, list) and isinstance(other, list)
    assert one[0].size == made.data[0].size and one[0].tobytes() != other[0].tobytes()
    batch = taken(made, 1)[0]
    assert batch.cond["control"].shape == batch.latents.shape
    varied = feed("control", random_crop=True, num_variants=2)
    assert varied.parts_in_use() == []
    first, second, third = (varied.assembly.fetch(epoch, [0]).conditions[0]["control"] for epoch in range(3))
    assert torch.equal(first, third) and not torch.equal(first, second)
    fixed = feed("control")
    assert fixed.parts_in_use() == []
    assert taken(fixed, 1)[0].cond["control"].shape[1:] == batch.latents.shape[1:]


def test_a_reference_that_breaks_leaves_its_sample_out(feed: Make, pictures: Path) -> None:
    path = pictures / "refs" / "1.png"
    path.write_bytes(path.read_bytes()[:300])
    assert [item.record.name for item in feed("kontext").data] == ["0.png", "2.png", "3.png", "4.png"]
    told: list[str] = []
    made = feed("control", random_crop=True, cache=False)
    made.tell = told.append
    assert len(made.assembly.fetch(0, [0, 1, 2]).items) == 2
    assert len(told) == 1 and "refs/1.png" in told[0]


def test_a_text_encoder_that_sees_pictures_gets_those_of_the_sample(feed: Make, pictures: Path) -> None:
    for path in (pictures / "set").glob("*.txt"):
        path.write_text("a cat")
    caches = (RowCache(), RowCache(), RowCache())
    titles = Titles()
    made = feed("edit", caches=caches, bar=titles, caption_dropout_rate=0.5)
    # a text and the empty text with each picture, and the empty text without any
    assert "encoding captions: 11" in titles
    rows = [made.text_rows.get(made.text_rows.of(item, "a cat"))["text"] for item in made.data]
    assert not any(torch.equal(rows[0], row) for row in rows[1:] if row.shape == rows[0].shape)
    batches = taken(made, 4)
    assert {text for batch in batches for text in batch.texts} == {"", "a cat"}
    noise(pictures / "refs" / "0.png", (64, 32), 99)
    titles.clear()
    feed("edit", caches=caches, bar=titles, caption_dropout_rate=0.5)
    assert titles == ["encoding references: 1", "encoding captions: 2"]


def test_varying_captions_see_pictures_too(feed: Make) -> None:
    made = feed("edit", shuffle_tokens=True)
    batch = taken(made, 1)[0]
    item = next(item for item in made.data if item.text(42, 0) == batch.texts[0])
    with made.family.parts.using(*made.family.needs["encode_prompt"]), torch.no_grad():
        row = made.family.encode_prompt([batch.texts[0]], images=[item_references(item)])[0]["text"]
    assert torch.allclose(batch.cond["text"][0, : len(row)], row, atol=1e-5)


def test_sizes_come_with_the_samples_and_cost_no_encoding(feed: Make) -> None:
    titles = Titles()
    caches = (RowCache(), RowCache(), RowCache())
    feed("sdxl", caches=caches, square_crop=True, resolution=32)
    made = feed("sdxl", caches=caches, square_crop=True, flip_x=True, bar=titles)
    (batch, *_) = taken(made, 1)
    size = made.data[0].size
    left = round((48 * size[1] / 32 - size[0]) / 2)
    assert batch.cond["size"].tolist() == [[32, 48, 0, left, size[1], size[0]]] * len(batch)
    assert batch.cond["size"].dtype == torch.float32


def test_live_captions_are_left_to_the_step(feed: Make) -> None:
    titles = Titles()
    made = feed("sdxl", live=True, bar=titles, caption_dropout_rate=0.4)
    assert not any("captions" in title for title in titles)
    assert made.parts_in_use() == list(made.family.needs["encode_prompt"])
    ahead = feed("sdxl", caption_dropout_rate=0.4)
    for batch, known in zip(taken(made, 4), taken(ahead, 4), strict=True):
        assert list(batch.cond.parts) == ["size"] and batch.texts == known.texts
        with made.family.parts.using(*made.family.needs["encode_prompt"]), torch.no_grad():
            rows = [made.family.encode_prompt([text], negative=not text)[0] for text in batch.texts]
        for name, value in collate(rows).parts.items():
            assert torch.allclose(value, known.cond[name], atol=1e-5)
        assert torch.equal(batch.noise, known.noise)
