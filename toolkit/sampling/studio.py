"""Makes pictures from prompts with a model that is not trained; what generating and class pictures have in common.

The order: `encode` all prompts, then inside `opened()` as many `make` as there are batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from toolkit.context import Context
from toolkit.data.cache.rows import RowCache
from toolkit.models.conditions import Row
from toolkit.models.family import Family
from toolkit.networks.loras import Loras
from toolkit.sampling.encoding import Encoding
from toolkit.sampling.prompts import SamplePrompt
from toolkit.sampling.render import Frames, decode, render_all
from toolkit.sampling.request import groups
from toolkit.sampling.sample import Advance
from toolkit.sampling.schedulers import make_scheduler
from toolkit.training.bars import Bar
from toolkit.training.text_rows import Prompt, TextRows

WINDOW = 64
"""Among so many prompts, those that fit together are looked for."""


class Fixed(Protocol):
    """The networks that the model section of a config names (`toolkit/trainer/frozen.py`)."""

    def attach(self) -> None:
        """Add them to the loaded denoiser."""
        ...

    def sampling(self) -> AbstractContextManager[None]:
        """Inside the block those for sampling act."""
        ...


class Studio:
    """A model with its networks, and the conditions of the prompts that it was given."""

    def __init__(
        self,
        family: Family,
        context: Context,
        fixed: Fixed,
        loras: Loras | None = None,
        sampler: str | None = None,
        most: int | None = None,
        texts: RowCache | None = None,
        options: str = "",
    ) -> None:
        """`most` pictures are made at once, by default about a megapixel. `texts` keeps the rows of texts; `options`
        is what else of a config changes them. ValueError for a sampler that cannot be used."""
        make_scheduler(family.facts, sampler)
        self.family, self.context, self.fixed, self.loras = family, context, fixed, loras
        self.sampler, self.most = sampler, most
        self._cache, self._options = texts or RowCache(), options
        self._encoding = Encoding(family)
        self._rows: dict[float, TextRows] = {}

    @property
    def scaled(self) -> Callable[[float], AbstractContextManager[None]]:
        """The block in which the LoRAs act with a multiple of their weights."""
        return self.loras.scaled if self.loras else lambda multiplier: nullcontext()

    def encode(self, prompts: Sequence[SamplePrompt], bar: Bar) -> None:
        """Encode the texts and the reference pictures, with the LoRAs of the text encoders where there are some."""
        if self.loras is None or not self.loras.has_text_layers:
            self._rows[1.0] = TextRows(self.family, self.context, self._cache, self._options)
            self._rows[1.0].encode(self._encoding.texts(prompts), bar)
        else:
            names = self.family.needs["encode_prompt"]
            with self.family.parts.using(*names), self.loras.attached(names):
                self._encode_scaled(prompts, bar)
        self._encoding.encode_pictures(prompts)

    def _encode_scaled(self, prompts: Sequence[SamplePrompt], bar: Bar) -> None:
        """Encode the texts with the LoRAs as strong as each prompt has them."""
        for multiplier in dict.fromkeys(prompt.network_multiplier for prompt in prompts):
            texts = self._encoding.texts(p for p in prompts if p.network_multiplier == multiplier)
            # not in the cache of others, whose keys know nothing of the LoRAs
            self._rows[multiplier] = TextRows(self.family, self.context, RowCache())
            with self.scaled(multiplier):
                self._rows[multiplier].encode(texts, bar)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Inside the block the denoiser is loaded with its networks, and the decoder beside it."""
        needs = self.family.needs
        with ExitStack() as stack:
            # with the decoder, so that it is not loaded anew for every batch
            stack.enter_context(self.family.parts.using(*needs["predict"], *needs["decode"]))
            self.fixed.attach()
            if self.loras is not None:
                stack.enter_context(self.loras.attached(needs["predict"]))
            stack.enter_context(self.fixed.sampling())
            yield

    def batches(self, prompts: Sequence[SamplePrompt]) -> Iterator[list[int]]:
        """Places of encoded prompts that are made together."""
        for start in range(0, len(prompts), WINDOW):
            part = prompts[start : start + WINDOW]
            for group in groups([self._encoding.request(prompt, self._row_of(prompt)) for prompt in part], self.most):
                yield [start + number for number in group]

    @torch.no_grad()
    def make(
        self,
        prompts: Sequence[SamplePrompt],
        starts: Sequence[Tensor] | None = None,
        strength: float = 1.0,
        advance: Advance | None = None,
    ) -> list[Frames]:
        """The pictures of encoded prompts; with the pixels `starts`, each [1, 3, H, W] in -1..1, from these on."""
        requests = [self._encoding.request(prompt, self._row_of(prompt)) for prompt in prompts]
        if starts is not None:
            with self.family.parts.using(*self.family.needs["encode_image"]):
                latents = [self.family.encode_image(pixels.to(self.context.device)) for pixels in starts]
            requests = [
                replace(request, start=one, strength=strength) for request, one in zip(requests, latents, strict=True)
            ]
        latents = render_all(self.family, self.context, requests, self.scaled, self.sampler, self.most, advance)
        return decode(self.family, latents)

    def _multiplier(self, prompt: SamplePrompt) -> float:
        """What decides the rows of its text; 1 where no LoRA changes them."""
        return prompt.network_multiplier if self.loras is not None and self.loras.has_text_layers else 1.0

    def _row_of(self, prompt: SamplePrompt) -> Callable[[Prompt], Row]:
        return self._rows[self._multiplier(prompt)].get
