"""Captions and prompts as rows of text conditions: from a cache, or encoded when they are needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter

import numpy as np
import torch

from toolkit.context import Context
from toolkit.data.cache.encode import encode_texts
from toolkit.data.cache.keys import KEY_BYTES
from toolkit.data.cache.rows import RowCache, as_array, combine, key_for
from toolkit.data.item import Item
from toolkit.data.pictures.pixels import whole_pictures
from toolkit.data.pictures.references import NONE, References
from toolkit.models.conditions import Row
from toolkit.models.family import Family
from toolkit.training.bars import Bar, counting
from toolkit.training.digests import Digests
from toolkit.training.text_length import too_long

TEXTS_AT_ONCE = 16
PICTURES_AT_ONCE = 4
BLOCK = 1 << 14
"""So many prompts are looked up at once."""


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

    def __init__(
        self, family: Family, context: Context, cache: RowCache, options: str = "", digests: Digests | None = None
    ) -> None:
        assert not (family.facts.prompt_images and family.facts.references == "first_frame")
        self.family, self.context, self.cache = family, context, cache
        self._digests = digests or Digests()
        encoders = {"encoders": [*makers(family, family.needs["encode_prompt"]), options], "dtype": str(context.dtype)}
        self._encoders = [key_for(**encoders, negative=negative) for negative in (False, True)]

    def of(self, item: Item, text: str, negative: bool = False) -> Prompt:
        """The prompt of a sample; its text is "" where the caption was dropped, which is a negative prompt."""
        if not self.family.facts.prompt_images:
            return Prompt(text, negative or not text)
        return Prompt(text, negative or not text, item.references, item.flip_x, item.flip_y)

    def __contains__(self, prompt: Prompt) -> bool:
        return self.key(prompt) in self.cache

    def get(self, prompt: Prompt) -> Row:
        """The row of a prompt that was encoded."""
        return self.cache.get(self.key(prompt))

    def rows(self, prompts: Sequence[Prompt]) -> list[Row]:
        """The rows of prompts that were encoded."""
        return list(self.cache.rows(as_array([self.key(prompt) for prompt in prompts])))

    def encode(self, prompts: Iterable[Prompt], bar: Bar, problems: list[str] | None = None) -> None:
        """Put the rows of prompts into the cache, where they are missing; says in `problems` what is too long."""
        context, missing = self.context, self._missing(prompts)
        if not any(context.gather(bool(missing))):
            return
        # each rank makes its own, whatever each of them believes to be missing
        own = {key: prompt for key, prompt in missing.items() if key[0] % context.world == context.rank}
        with (
            self.family.parts.using(*self.family.needs["encode_prompt"]),
            torch.no_grad(),
            bar("encoding captions", len(own)) as advance,
        ):
            # a call of the text encoder is for negative texts or for others
            for negative in (False, True):
                encode_texts(
                    {key: prompt for key, prompt in own.items() if prompt.negative == negative},
                    self.cache,
                    self.make,
                    PICTURES_AT_ONCE if self.family.facts.prompt_images else TEXTS_AT_ONCE,
                    counting(advance),
                    attrgetter("text"),
                )
            if problems is not None:
                problems += too_long(self.family, [prompt.text for prompt in missing.values() if not prompt.negative])
        context.wait()
        if context.world > 1:
            self.cache.refresh()

    def _missing(self, prompts: Iterable[Prompt]) -> dict[bytes, Prompt]:
        """The prompts without a row, each once; looked up in blocks, so that millions need not be in memory at once."""
        missing: dict[bytes, Prompt] = {}
        remaining = iter(prompts)
        while block := list(islice(remaining, BLOCK)):
            keys = [self.key(prompt) for prompt in block]
            places = np.flatnonzero(~self.cache.contains(as_array(keys))).tolist()
            missing |= {keys[place]: block[place] for place in reversed(places)}
        return missing

    def make(self, prompts: Sequence[Prompt]) -> list[Row]:
        """Rows of prompts that are all negative or all not, on the device."""
        images = None
        if self.family.facts.prompt_images:
            images = [whole_pictures(prompt.references, prompt.flip_x, prompt.flip_y) for prompt in prompts]
        texts = [prompt.text for prompt in prompts]
        rows = self.family.encode_prompt(texts, images=images, negative=prompts[0].negative)
        return [stored(row, self.context.dtype) for row in rows]

    def key(self, prompt: Prompt) -> bytes:
        """Where the row of a prompt is in the cache."""
        text = hashlib.blake2b(prompt.text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()
        key = combine(text, self._encoders[prompt.negative])
        if not prompt.references:
            return key
        digests = [self._digests.of(record).hex() for record in prompt.references.pictures]
        flips = [prompt.flip_x, prompt.flip_y]
        return combine(key, key_for(pictures=digests, behind=prompt.references.backgrounds, flips=flips))


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
