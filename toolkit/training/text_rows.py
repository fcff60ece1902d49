"""Captions and prompts as rows of text conditions: from a cache, or encoded when they are needed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import torch

from toolkit.context import Context
from toolkit.data.cache import RowCache, key_for
from toolkit.data.encode import encode_texts
from toolkit.data.items import Item
from toolkit.data.pixels import whole_pictures
from toolkit.data.references import NONE, References
from toolkit.models.conditions import Row
from toolkit.models.family import Family
from toolkit.training.bars import Bar, counting

TEXTS_AT_ONCE = 16
PICTURES_AT_ONCE = 4


@dataclass(frozen=True)
class Prompt:
    """What `encode_prompt` turns into a row."""

    text: str
    negative: bool = False
    references: References = NONE
    """Pictures that the text encoder sees, at their own size; only where `facts.prompt_images` says that it does."""
    flip_x: bool = False
    flip_y: bool = False


class TextRows:
    """The text rows of a run, in a cache; `options` is what else of a config changes what the encoders answer."""

    def __init__(self, family: Family, context: Context, cache: RowCache, options: str = "") -> None:
        assert not (family.facts.prompt_images and family.facts.references == "first_frame")
        self.family, self.context, self.cache = family, context, cache
        names = [name for name in family.needs["encode_prompt"] if not name.startswith("tokenizer")]
        self._encoders = [*makers(family, names), options]

    def of(self, item: Item, text: str) -> Prompt:
        """The prompt of a sample; its text is "" where the caption was dropped."""
        if not self.family.facts.prompt_images:
            return Prompt(text, negative=not text)
        return Prompt(text, not text, item.references, item.flip_x, item.flip_y)

    def __contains__(self, prompt: Prompt) -> bool:
        return self.key(prompt) in self.cache

    def get(self, prompt: Prompt) -> Row:
        """The row of a prompt that was encoded."""
        return self.cache.get(self.key(prompt))

    def encode(self, prompts: Iterable[Prompt], bar: Bar) -> None:
        """Put the rows of prompts into the cache, where they are missing."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self]
        if not missing:
            return
        with (
            self.family.parts.using(*self.family.needs["encode_prompt"]),
            torch.no_grad(),
            bar("encoding captions", len(missing)) as advance,
        ):
            # a call of the text encoder is for negative texts or for others
            for negative in (False, True):
                encode_texts(
                    [prompt for prompt in missing if prompt.negative == negative],
                    self.cache,
                    self.make,
                    PICTURES_AT_ONCE if self.family.facts.prompt_images else TEXTS_AT_ONCE,
                    self.key,
                    counting(advance),
                    attrgetter("text"),
                )

    def make(self, prompts: Sequence[Prompt]) -> list[Row]:
        """Rows of prompts that are all negative or all not, on the device."""
        images = None
        if self.family.facts.prompt_images:
            images = [whole_pictures(prompt.references, prompt.flip_x, prompt.flip_y) for prompt in prompts]
        texts = [prompt.text for prompt in prompts]
        rows = self.family.encode_prompt(texts, images=images, negative=prompts[0].negative)
        return [stored(row, self.context.dtype) for row in rows]

    def key(self, prompt: Prompt) -> str:
        """Where the row of a prompt is in the cache."""
        parts: dict[str, object] = {}
        if prompt.references:
            parts["pictures"] = [record.sha for record in prompt.references.pictures]
            parts["behind"] = prompt.references.backgrounds
            parts["flips"] = [prompt.flip_x, prompt.flip_y]
        return key_for(
            text=prompt.text,
            negative=prompt.negative,
            encoders=self._encoders,
            dtype=str(self.context.dtype),
            **parts,
        )


def makers(family: Family, names: Iterable[str]) -> list[str]:
    """What decides the answers of a family's parts: its class, the weights, their precision."""
    parts, kind = family.parts, type(family)
    own = [f"{parts.source.identity(name)} {parts.dtypes.get(name, parts.dtype)}" for name in names]
    if not own:
        # pixels as latents: their scale can only come from the configuration of what is trained on them
        own = [json.dumps(parts.source.config(family.needs["predict"][0]), sort_keys=True)]
    return [f"{kind.__module__}.{kind.__qualname__} {family.facts.base_model}", *own]


def stored(row: Row, dtype: torch.dtype) -> Row:
    """A row as the cache keeps it."""
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in row.items()}
