"""Other texts for the same samples: encoded as captions are, wherever and whenever that happens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
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
from toolkit.data.loader import Position
from toolkit.models.conditions import Conditions
from toolkit.trainer.preserving import negative_texts
from toolkit.training.batch import Batch
from toolkit.training.companions import Companion, in_class, same_for_all
from toolkit.training.feed import Feed
from toolkit.training.text_rows import Prompt

KIND = in_class("class", "dog")
NEGATIVE = same_for_all("negative", ("bad", "worse", ""))
Feeds = Callable[..., Feed]


@pytest.fixture
def feed(tiny_flux: Path, cpu: Context, tmp_path: Path) -> Feeds:
    """Makes an encoded feed of six pictures: `feed(keep_texts=False, live=False, sets=({},))`."""
    rng = Random(0)
    for index in range(6):
        Image.frombytes("RGB", (32, 32), rng.randbytes(32 * 32 * 3)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(f"a tok, blue, number {index}")

    def make(
        keep_texts: bool = False, live: bool = False, sets: Any = ({},), companions: Any = (KIND, NEGATIVE)
    ) -> Feed:
        model = Flux.model_validate({"arch": "flux", "name_or_path": str(tiny_flux)})
        family = model.build(cpu, checkpointing=False, bypass_guidance=False)
        keys = {"folder_path": str(tmp_path), "resolution": 32, "trigger_word": "tok"}
        sections = [DatasetSection.model_validate({**keys, **own}) for own in sets]
        data = read_datasets(sections, family.facts.multiple, 3, None)
        made = Feed(family, cpu, data, RowCache(), RowCache(), keep_texts, live_texts=live, companions=companions)
        made.encode(lambda title, total: nullcontext(lambda count: None))
        return made

    return make


def taken(feed: Feed, count: int = 4) -> list[Batch]:
    with ExitStack() as stack:
        batches = feed.batches(stack, Position(0, 0), 0, 2)
        return [next(batches)[1] for _ in range(count)]


def test_they_come_with_the_captions_whose_samples_they_are(feed: Feeds) -> None:
    made = feed()
    for batch in taken(made):
        assert batch.other_texts["class"] == tuple(text.replace("tok", "dog") for text in batch.texts)
        assert all("dog" in text for text in batch.other_texts["class"])
        other = batch.with_other("class")
        assert other.texts == batch.other_texts["class"] and other.latents is batch.latents
        for name in ("text", "pooled"):
            rows = [made.text_row(text)[name] for text in other.texts]
            assert torch.equal(other.cond[name], torch.stack(rows).float())
            assert not torch.equal(other.cond[name], batch.cond[name])
        found = made.text_rows.get(Prompt(batch.other_texts["negative"][0], negative=True))
        assert torch.equal(batch.with_other("negative").cond["pooled"][0], found["pooled"].float())
    seen = {text for batch in taken(made, 12) for text in batch.other_texts["negative"]}
    assert seen == {"bad", "worse", ""}


def test_it_is_the_same_whether_they_are_encoded_ahead_or_in_the_step(feed: Feeds) -> None:
    varying = ({"shuffle_tokens": True, "num_variants": 2},)
    ahead, now = taken(feed(keep_texts=True, sets=varying)), taken(feed(sets=varying))
    family_feed = feed(live=True, sets=varying)
    live = taken(family_feed)
    # two epochs, for as long the two versions that are encoded ahead are those of the epochs
    for one, another, raw in zip(ahead, now, live, strict=True):
        assert one.other_texts == another.other_texts == raw.other_texts and not raw.others
        family = family_feed.family
        with family.parts.using(*family.needs["encode_prompt"]), torch.no_grad():
            encoded = KIND.batch(family, raw).cond
        for name in ("text", "pooled"):
            torch.testing.assert_close(one.others["class"][name], another.others["class"][name])
            torch.testing.assert_close(encoded[name], one.others["class"][name])


class Sides:
    """A family whose text encoders tell negative prompts from others."""

    def encode_prompt(self, texts: list[str], negative: bool = False) -> list[dict[str, torch.Tensor]]:
        return [{"side": torch.tensor([-1.0 if negative else 1.0])} for _ in texts]


@pytest.mark.parametrize(("companion", "wanted"), [(KIND, [1, -1]), (NEGATIVE, [-1, -1])])
def test_negative_prompts_are_encoded_as_such_in_the_step_too(companion: Companion, wanted: list[int]) -> None:
    family: Any = Sides()
    texts, cond = {companion.name: ("a dog", "")}, Conditions({"side": torch.zeros(2, 1)})
    zeros = torch.zeros(2, 1, 2, 2)
    batch = Batch(zeros, cond, torch.ones(2), torch.zeros(2), zeros, ("a tok", "b tok"), other_texts=texts)
    assert companion.batch(family, batch).cond["side"].flatten().tolist() == wanted


def test_a_run_without_them_has_nothing_of_them(feed: Feeds) -> None:
    (batch,) = taken(feed(companions=()), 1)
    assert not batch.others and not batch.other_texts and batch.strength == 1 and not batch.keeps_base


def test_texts_that_belong_together_are_drawn_together(feed: Feeds) -> None:
    item = feed(companions=()).data[0]
    one, other = (replace(same_for_all(name, tuple(name)), drawn_with="pair") for name in ("abcd", "efgh"))
    drawn = [(one.draw("", item, 7, epoch), other.draw("", item, 7, epoch)) for epoch in range(64)]
    assert set(drawn) == set(zip("abcd", "efgh", strict=True))


def test_a_batch_is_of_one_strength_and_one_kind(feed: Feeds) -> None:
    made = feed(sets=({}, {"network_weight": 0.5}, {"prior_reg": True}))
    for places in made.plan_for(0):
        treatments = [made.data[place].treatment for place in places.tolist()]
        assert len({(each.strength, each.keeps_base) for each in treatments}) == 1
    seen = {(batch.strength, batch.keeps_base, len(batch)) for batch in taken(made, 12)}
    assert seen == {(1.0, False, 3), (0.5, False, 3), (1.0, True, 3)}


def test_negative_prompts_are_a_text_or_the_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "no.txt"
    file.write_text("ugly\n\nblurry\nugly\n", encoding="utf-8")
    assert negative_texts(None, 3) == ("",) and negative_texts("ugly, bad", 1) == ("ugly, bad",)
    assert negative_texts(str(file), 1) == ("ugly", "blurry")
    mixed = negative_texts(str(file), 2)
    assert set(mixed) <= {"ugly", "blurry", "ugly, blurry", "blurry, ugly", "ugly, ugly"} and len(mixed) > 2
    assert mixed == negative_texts(str(file), 2)
    file.write_text("\n")
    with pytest.raises(ValueError, match="no lines"):
        negative_texts(str(file), 1)
