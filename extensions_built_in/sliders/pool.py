"""Latents that the model makes for a slider without pictures: once, before the first step, and kept in the cache.

Concept Sliders (Gandikota et al., 2023) denoise a part of the way in every step. Whole pictures that are noised again
to the time of a step show the network the same, cost a fixed number of predictions instead of some in every step, and
make a step a pure function of its random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch

from extensions_built_in.sliders.scenes import Scene, prompt_of
from toolkit.data.cache.keys import key_for
from toolkit.data.cache.rows import RowCache
from toolkit.data.loader import Position
from toolkit.data.rng import seed_for, stream
from toolkit.models.conditions import Conditions, collate
from toolkit.reporting.progress import bar
from toolkit.sampling.encoding import Encoding
from toolkit.sampling.prompts import SamplePrompt, fit_size
from toolkit.sampling.render import render
from toolkit.sampling.request import groups, numbers
from toolkit.training.batch import Batch
from toolkit.training.draws import Draws
from toolkit.training.text_rows import Prompt, TextRows, makers

if TYPE_CHECKING:
    from toolkit.config.sections.sample import SampleSection
    from toolkit.context import Context
    from toolkit.models.family import Family


@dataclass(frozen=True)
class Entry:
    """One of the latents: what it is trained on, and how it is made."""

    scene: Scene
    made_by: SamplePrompt


@dataclass(frozen=True)
class Group:
    """Entries of one target and size, which may share a batch."""

    entries: Sequence[Entry]
    strength: float
    """Of the network."""
    weight: float
    """Factor of the loss."""


def make_group(
    scenes: Sequence[Scene], size: tuple[int, int], count: int, seed: int, sample: SampleSection, family: Family,
    strength: float = 1.0, weight: float = 1.0,
) -> Group:  # fmt: skip
    """`count` entries: the scenes in a random order, again and again, shown by each of their texts in turn."""
    width, height = fit_size(*size, family.facts.made_multiple)
    order = Random(f"{seed} scenes").sample(scenes, len(scenes))
    entries = []
    for number in range(count):
        scene = order[number % len(order)]
        # the network is to slide a picture that has begun to slide, so both ends are shown beside the middle
        text = scene.texts[(number + number // len(order)) % 3]
        prompt = SamplePrompt(
            text,
            sample.neg or "",
            width,
            height,
            seed=seed_for(seed, 0, f"{number} {text}", "slider latents"),
            steps=sample.sample_steps,
            guidance=sample.guidance_scale,
            guidance_rescale=sample.guidance_rescale,
            num_frames=sample.num_frames,
            fps=sample.fps,
        )
        entries.append(Entry(scene, prompt))
    return Group(entries, strength, weight)


class Pool:
    """The latents of all groups, and the batches that are drawn from them."""

    def __init__(
        self,
        groups: Sequence[Group],
        family: Family,
        context: Context,
        texts: TextRows,
        model: str,
        sampler: str | None,
        draws: Draws,
    ) -> None:
        """`model` is what else of a config changes what the denoiser makes; `draws` is for the objective's noise."""
        self.groups, self.family, self.context, self.texts = groups, family, context, texts
        self.sampler, self.draws = sampler, draws
        self._made_by = {"denoiser": [*makers(family, family.needs["predict"]), model], "dtype": str(context.dtype)}
        folder = context.cache / "slider_latents" if context.cache else None
        self.cache, self._encoding = RowCache(folder), Encoding(family)

    @property
    def prompts(self) -> list[Prompt]:
        """All that the text encoders have to encode."""
        entries = [entry for group in self.groups for entry in group.entries]
        own = [prompt_of(text) for entry in entries for text in entry.scene.texts]
        return list(dict.fromkeys([*own, *self._encoding.texts(entry.made_by for entry in entries)]))

    def key(self, entry: Entry) -> bytes:
        """Where the latents of an entry are in the cache."""
        return key_for(**self._made_by, sampler=self.sampler, prompt=repr(entry.made_by))

    @torch.no_grad()
    def fill(self) -> None:
        """Make what is missing. The texts must be encoded, the denoiser loaded and the trained network off."""
        self._make_own()
        self.context.wait()
        if self.context.world > 1:
            self.cache.refresh()

    def _make_own(self) -> None:
        """The part of this rank."""
        rank, world = self.context.rank, self.context.world
        every = {self.key(entry): entry for group in self.groups for entry in group.entries}
        missing = [(key, every[key]) for key in every if key not in self.cache and key[0] % world == rank]
        if not missing:
            return
        requests = [self._encoding.request(entry.made_by, self.texts.get) for _, entry in missing]
        with bar("making latents", len(missing)) as advance:
            for places in groups(requests):
                made = render(self.family, self.context, [requests[place] for place in places], self.sampler)
                for place, latents in zip(places, made, strict=True):
                    self.cache.put(missing[place][0], {"latents": latents[0].float().cpu()})
                advance(len(places))
        self.cache.flush()

    def batches(self, start: Position, batch_size: int) -> Iterator[tuple[Position, Batch]]:
        """Endless batches on the device with the position after each: an epoch is one batch of every group."""
        epoch, index = start
        while True:
            rng, count = stream(self.context.seed, epoch, "groups", "order"), len(self.groups)
            order = rng.sample(range(count), count)
            for number in range(index, len(order)):
                is_last = number + 1 == len(order)
                after = Position(epoch + 1, 0) if is_last else Position(epoch, number + 1)
                yield after, self.batch(order[number], epoch, batch_size)
            epoch, index = epoch + 1, 0

    def batch(self, number: int, epoch: int, size: int) -> Batch:
        """The batch of a group in an epoch, with every random number that its step needs."""
        group, context = self.groups[number], self.context
        # ranks go on where the one before ends, so that many small batches are one large one
        names = [f"{number}.{place}" for place in range(context.rank * size, (context.rank + 1) * size)]
        chosen = [stream(context.seed, epoch, name, "entry").randrange(len(group.entries)) for name in names]
        entries = [group.entries[place] for place in chosen]
        latents = torch.stack([self.cache.get(self.key(entry))["latents"] for entry in entries])
        u, noise, more = self.draws.make(
            lambda epoch, purpose: [seed_for(context.seed, epoch, name, purpose) for name in names],
            epoch,
            latents.shape[1:],
        )
        made = Batch(
            latents,
            self._conditions(entries, lambda scene: scene.neutral),
            torch.full((size,), group.weight),
            u,
            noise,
            tuple(entry.scene.neutral for entry in entries),
            draws=more,
            others={
                "positive": self._conditions(entries, lambda scene: scene.positive),
                "negative": self._conditions(entries, lambda scene: scene.negative),
            },
            other_texts={
                "positive": tuple(entry.scene.positive for entry in entries),
                "negative": tuple(entry.scene.negative for entry in entries),
            },
            strength=group.strength,
        )
        return made.to(context.device)

    def _conditions(self, entries: Sequence[Entry], text_of: Callable[[Scene], str]) -> Conditions:
        texts = [prompt_of(text_of(entry.scene)) for entry in entries]
        found = zip(texts, entries, strict=True)
        return collate([{**self.texts.get(text), **numbers(entry.made_by, self.family.facts)} for text, entry in found])
