"""Captions that are encoded inside the step."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.context import Context
from toolkit.models.conditions import Conditions, Row
from toolkit.training.batch import Batch
from toolkit.training.text_rows import Prompt
from toolkit.training.texts import live_row, with_texts


class Encoder:
    """A family whose rows have a token of the trained weight per word; the unconditional text has a row of -1."""

    def __init__(self) -> None:
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.calls: list[tuple[list[str], bool]] = []

    def encode_prompt(self, texts: list[str], images: None = None, negative: bool = False) -> list[Row]:
        self.calls.append((texts, negative))
        if negative:
            return [{"text": -self.weight.expand(1, 3)} for _ in texts]
        return [{"text": self.weight * len(text.split()) * torch.ones(len(text.split()), 3)} for text in texts]


def batch_of(texts: tuple[str, ...], cond: dict[str, Tensor]) -> Batch:
    count = len(texts)
    latents = torch.zeros(count, 1, 1, 1)
    return Batch(latents, Conditions(cond), torch.ones(count), torch.zeros(count), latents, texts)


def test_captions_join_the_other_conditions_with_a_gradient():
    family = Encoder()
    batch = batch_of(("a red cat", "", "a cat", "a red cat"), {"size": torch.ones(4, 6)})
    cond = with_texts(family, batch).cond  # type: ignore[arg-type]
    assert cond["text"].shape == (4, 3, 3) and torch.equal(cond["size"], torch.ones(4, 6))
    assert cond["text"][:, 0, 0].tolist() == [3, -1, 2, 3]
    assert cond.mask("text").tolist() == [[True] * 3, [True, False, False], [True, True, False], [True] * 3]
    assert family.calls == [(["a red cat", "a cat"], False), ([""], True)]
    cond["text"].sum().backward()
    assert family.weight.grad is not None and family.weight.grad.tolist() == [9 - 1 + 4 + 9] * 3


def test_a_row_follows_the_encoder(cpu: Context):
    family = Encoder()
    row = live_row(family, cpu)  # type: ignore[arg-type]
    assert row(Prompt("a cat"))["text"].tolist() == [[2.0] * 3] * 2
    with torch.no_grad():
        family.weight.mul_(5)
    assert row(Prompt("a cat"))["text"].tolist() == [[10.0] * 3] * 2
    assert row(Prompt("bad", negative=True))["text"].tolist() == row(Prompt(""))["text"].tolist() == [[-5.0] * 3]
