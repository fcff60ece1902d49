"""HunyuanImage: what prompts want written, and which checkpoints cannot be trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from family_contract import assert_near
from family_subject import Subject, loaded
from hunyuan_image_case import CASES, encode_prompt

from extensions_built_in.hunyuan_image.family import quoted
from toolkit.models.conditions import collate

HALF = torch.tensor([0.5, 0.5], dtype=torch.float64)
SIGNS = ['a sign that says "two dogs"', "a sign that says 'a cat' and \u201cred\u201d"]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(CASES["hunyuan-image"], tmp_path_factory.mktemp("hunyuan") / "tiny")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("two dogs", []), (SIGNS[0], ["two dogs"]), (SIGNS[1], ["a cat", "red"]), ('\u2018a\u2019 "b"', ["b", "a"])],
)
def test_what_is_to_be_written(text: str, wanted: list[str]):
    assert quoted(text) == wanted


def test_glyphs_are_those_of_the_pipeline_and_change_the_picture(subject: Subject):
    family = subject.build()
    texts = [*SIGNS, "two dogs"]
    with loaded(family), torch.no_grad():
        rows = family.encode_prompt(texts)
        wanted = encode_prompt(subject.pipeline, texts)
        for name, tensors in wanted.items():
            for row, tensor in zip(rows, tensors, strict=True):
                assert_near(row[name], tensor, name)
        noisy = subject.noise(family, 1)
        found = family.predict(noisy, HALF[:1], collate([rows[0]]))
        other = family.predict(noisy, HALF[:1], collate([{**rows[0], "glyphs": rows[1]["glyphs"]}]))
        without = family.predict(noisy, HALF[:1], collate([{**rows[0], "glyphs": rows[2]["glyphs"]}]))
    assert (found - other).abs().max() > 1e-4 and (found - without).abs().max() > 1e-4


def test_a_batch_may_mix_prompts_with_and_without_glyphs(subject: Subject):
    family = subject.build()
    noisy = subject.noise(family)
    with loaded(family), torch.no_grad():
        rows = family.encode_prompt([SIGNS[0], "two dogs"])
        together = family.predict(noisy, HALF, collate(rows))
        alone = [family.predict(noisy[i : i + 1], HALF[:1], collate([row])) for i, row in enumerate(rows)]
    assert_near(together, torch.cat(alone), "a batch")


@pytest.mark.parametrize("key", ["use_meanflow", "guidance_embeds"])
def test_distilled_checkpoints_are_refused(subject: Subject, tmp_path: Path, key: str):
    distilled = Subject.__new__(Subject)
    distilled.__dict__ |= subject.__dict__ | {"folder": tmp_path}
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({key: True}))
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="the distilled HunyuanImage cannot be trained"):
        distilled.build()
