"""Captions encoded inside the step, with a gradient: for trained text encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from toolkit.context import Context
from toolkit.models.conditions import Row, collate
from toolkit.models.family import Family
from toolkit.training.batch import Batch, replaced
from toolkit.training.text_rows import Prompt

TextRow = Callable[[Prompt], Row]
"""The row of a prompt: one that is stored, or by a text encoder that is trained, as it is now."""


def encode_live(family: Family, texts: Sequence[str], negative: bool = False) -> list[Row]:
    """The rows of `texts` by the text encoders as they are now; the empty text is the unconditional one."""
    found: dict[str, Row] = {}
    for kind in (False, True):
        wanted = [text for text in dict.fromkeys(texts) if (negative or not text) == kind]
        if wanted:
            found |= zip(wanted, family.encode_prompt(wanted, negative=kind), strict=True)
    return [found[text] for text in texts]


def live_row(family: Family, context: Context) -> TextRow:
    """Rows by the text encoders as they are when asked."""

    def row(prompt: Prompt) -> Row:
        with context.autocast():
            return encode_live(family, [prompt.text], prompt.negative)[0]

    return row


def with_texts(family: Family, batch: Batch, negative: bool = False) -> Batch:
    """The batch with the conditions of its `texts`; `negative`: all of them are negative prompts."""
    text = collate(encode_live(family, batch.texts, negative)).to(batch.latents.device, torch.float32)
    return replace(batch, cond=replaced(batch.cond, text))
