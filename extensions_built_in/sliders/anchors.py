"""Prompts that stay as they are, as the conditions of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from extensions_built_in.sliders.scenes import prompt_of
from extensions_built_in.sliders.steps import Anchor
from toolkit.models.conditions import Conditions, collate
from toolkit.training.batch import Batch, replaced
from toolkit.training.text_rows import Prompt, TextRows

if TYPE_CHECKING:
    from extensions_built_in.sliders.sections import SliderAnchor


class Anchors:
    """The anchors of a slider; each is compared on the latents of every step."""

    def __init__(self, sections: Sequence[SliderAnchor], texts: TextRows) -> None:
        self.sections, self.texts = sections, texts

    @property
    def prompts(self) -> list[Prompt]:
        """What has to be encoded."""
        return [prompt_of(section.prompt) for section in self.sections]

    def of(self, batch: Batch) -> list[Anchor]:
        """The anchors with the latents of a batch."""
        return [Anchor(with_text(batch, self.texts, each.prompt), each.multiplier) for each in self.sections]


def with_text(batch: Batch, texts: TextRows, text: str) -> Conditions:
    """The conditions of a batch with one text, encoded ahead, in the place of all captions."""
    row = collate([texts.get(prompt_of(text))] * len(batch)).to(batch.latents.device, torch.float32)
    return replaced(batch.cond, row)
