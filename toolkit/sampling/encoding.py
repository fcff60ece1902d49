"""What the parts before the denoiser make of sample prompts: which texts they need, and the rows of their pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from toolkit.data.pictures.references import NONE
from toolkit.models.conditions import Row
from toolkit.models.family import Family
from toolkit.sampling.prompts import SamplePrompt
from toolkit.sampling.references import listed_references, open_references
from toolkit.sampling.request import Request, latent_shape, make_request, needs_negative
from toolkit.training.text_rows import Prompt


class Encoding:
    """The way from sample prompts to requests; whoever knows the rows of texts hands them in."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._conditions: dict[SamplePrompt, Row] = {}

    def texts(self, prompts: Iterable[SamplePrompt]) -> list[Prompt]:
        """What to encode: the prompts, and the negative ones that guidance takes."""
        return list(dict.fromkeys(text for prompt in prompts for text in self._texts(prompt) if text is not None))

    @torch.no_grad()
    def encode_pictures(self, prompts: Iterable[SamplePrompt]) -> None:
        """Encode the reference pictures as the VAE sees them."""
        facts, shown = self.family.facts, list(dict.fromkeys(p for p in prompts if p.images))
        with self.family.parts.using(*(self.family.needs.get("encode_condition", ()) if shown else ())):
            for prompt in shown:
                row = self.family.encode_condition(open_references(prompt, facts), latent_shape(prompt, facts))
                self._conditions[prompt] = {name: tensor.cpu() for name, tensor in row.items()}

    def request(self, prompt: SamplePrompt, text_row: Callable[[Prompt], Row]) -> Request:
        """The prompt with the conditions that it is made under."""
        text, negative = self._texts(prompt)
        no = text_row(negative) if negative else None
        return make_request(prompt, self.family.facts, text_row(text), no, self._conditions.get(prompt, {}))

    def _texts(self, prompt: SamplePrompt) -> tuple[Prompt, Prompt | None]:
        """The prompt and its negative one for the text encoders, with the pictures if they look at them."""
        facts = self.family.facts
        shown = listed_references(prompt) if facts.prompt_images else NONE
        negative = Prompt(prompt.negative, True, shown) if needs_negative(prompt, facts) else None
        return Prompt(prompt.prompt, not prompt.prompt, shown), negative
