"""Ovis-Image, LongCat-Image and BRIA: what the contract test cannot see of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bria_case import CASES as BRIA
from family_subject import Subject, loaded
from longcat_image_case import CASES as LONGCAT
from longcat_image_case import encode_prompt
from ovis_image_case import CASES as OVIS

from extensions_built_in.longcat_image.tiny import TEXT_LENGTH
from toolkit.models.conditions import collate

HALF = torch.tensor([0.5], dtype=torch.float64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("relatives")


@pytest.mark.parametrize("case", [BRIA["bria"], OVIS["ovis-image"]], ids=["bria", "ovis"])
def test_the_network_sees_zeros_behind_the_text(folder: Path, case):
    subject = Subject(case, folder / case.arch)
    family = subject.build()
    with loaded(family), torch.no_grad():
        (row,) = family.encode_prompt(["two dogs"])
        padded = {"text": torch.nn.functional.pad(row["text"], (0, 0, 0, 5))}
        noisy = subject.noise(family, 1)
        found, wanted = (family.predict(noisy, HALF, collate([one])) for one in (row, padded))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_an_empty_negative_prompt_of_bria_is_zero_and_an_empty_caption_is_not(folder: Path):
    family = Subject(BRIA["bria"], folder / "empty").build()
    with loaded(family), torch.no_grad():
        (negative,), (caption,) = family.encode_prompt([""], negative=True), family.encode_prompt([""])
        (other,) = family.encode_prompt(["two dogs"], negative=True)
    assert not negative["text"].any() and caption["text"].any() and other["text"].any()


def test_longcat_spells_what_is_quoted(folder: Path):
    subject = Subject(LONGCAT["longcat-image"], folder / "longcat")
    family = subject.build()
    texts = ["a 'red circle'", "a red circle", "it's a dog's 'red'", "two dogs " * 40]
    with loaded(family), torch.no_grad():
        tokenizer = family.parts["tokenizer"]
        assert len(family._token_ids(texts[0])) == len(tokenizer("a ").input_ids) + len("'red circle'")
        assert len(family._token_ids(texts[3])) == TEXT_LENGTH
        rows, wanted = family.encode_prompt(texts), encode_prompt(subject.pipeline, texts)["text"]
    for row, tensor in zip(rows, wanted, strict=True):
        torch.testing.assert_close(row["text"], tensor)


def test_guidance_of_longcat_does_not_lengthen_tokens(folder: Path):
    family = Subject(LONGCAT["longcat-image"], folder / "guide").build()
    yes, no = torch.randn(2, 1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    guided = family.guide(yes, no, 3.0, HALF)
    sizes = [x.unfold(2, 2, 2).unfold(3, 2, 2).square().sum((1, 4, 5)) for x in (guided, yes)]
    assert (sizes[0] <= sizes[1] * 1.0001).all()
    shrinking = family.guide(yes, yes * 1.2, 2.0, HALF)
    torch.testing.assert_close(shrinking, yes * 0.8)
