"""What stays as it was: losses toward what the model answers without the network that is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.models.family import Family
from toolkit.networks.network import Network
from toolkit.training.batch import Batch
from toolkit.training.columns import column
from toolkit.training.companions import Companion
from toolkit.training.objective import Answer, Beside, Prepare, Shot, Term, predict
from toolkit.training.step import sample_means
from toolkit.training.texts import with_texts


@contextmanager
def without_gradient() -> Iterator[None]:
    """Inside the block nothing is remembered for a backward pass, and after it nothing of that is used."""
    with torch.no_grad():
        yield
    # autocast keeps the weights that it rounded; in some versions of torch, those of this block have no gradient later
    torch.clear_autocast_cache()


@dataclass(frozen=True)
class Base:
    """The model without what is trained: the network off, in the text encoders too."""

    network: Network
    live_texts: bool = False
    """Whether text encoders are trained, so that captions have to be encoded anew without the network."""

    def answer(self, family: Family, shot: Shot, guess: Answer = predict, other: Companion | None = None) -> Tensor:
        """Its prediction, like the latents, without a gradient; for the `other` texts if they are named."""
        with without_gradient(), self.network.scaled(0):
            if other is not None:
                shot = replace(shot, batch=other.batch(family, shot.batch))
            elif self.live_texts:
                shot = replace(shot, batch=with_texts(family, shot.batch))
            return guess(family, shot).float()


def base_target(base: Base, target: Answer, guess: Answer) -> Answer:
    """The target; for batches that should stay as they were, what the base answers."""

    def answer(family: Family, shot: Shot) -> Tensor:
        return base.answer(family, shot, guess) if shot.batch.keeps_base else target(family, shot)

    return answer


def stay(base: Base, companion: Companion, multiplier: float) -> Term:
    """The squared error between network and base on other texts, a pass of its own.

    Samples whose caption is that text already are left out: the network is just learning to answer otherwise there.
    """

    def term(family: Family, shot: Shot) -> Iterator[Tensor]:
        others, captions = shot.batch.other_texts[companion.name], shot.batch.texts
        differs = [other != caption for other, caption in zip(others, captions, strict=True)]
        if not any(differs):
            return
        wanted = base.answer(family, shot, other=companion)
        batch = companion.batch(family, shot.batch)
        errors = apart(predict(family, replace(shot, batch=batch)), wanted, batch)
        weight = batch.weight
        if not all(differs):
            weight = weight * torch.tensor(differs).to(weight.device, non_blocking=True)
        yield multiplier * (errors * weight).mean()

    return term


def stay_outside(base: Base, guess: Answer, multiplier: float) -> Beside:
    """The squared error between network and base where the mask leaves pictures out."""

    def beside(family: Family, made: Tensor, shot: Shot) -> Tensor:
        if shot.batch.mask is None:
            return made.new_zeros(len(made), dtype=torch.float32)
        share = outside(shot.batch.mask)
        return multiplier * apart(made, base.answer(family, shot, guess), shot.batch, share)

    return beside


def diverge(base: Base, guess: Answer) -> Beside:
    """Minus the squared error between network and base: the network is rewarded for answering otherwise.

    There is no bound to what can be gained, so it takes a small learning rate and few steps. Batches that should stay
    as they were are left out.
    """

    def beside(family: Family, made: Tensor, shot: Shot) -> Tensor:
        if shot.batch.keeps_base:
            return made.new_zeros(len(made), dtype=torch.float32)
        return -apart(made, base.answer(family, shot, guess), shot.batch, shot.batch.mask)

    return beside


def apart(one: Tensor, other: Tensor, batch: Batch, share: Tensor | None = None) -> Tensor:
    """Mean squared difference of each sample [B], over what was not given; `share` [B, 1, (1,) h, w] weighs cells."""
    error = (one.float() - other.float()).square()
    return sample_means(error if share is None else error * share, batch.num_given)


def outside(mask: Tensor) -> Tensor:
    """What the mask [B, 1, (1,) h, w] leaves out, as weights of mean 1 for each sample; 0 where it leaves out nothing.

    Masks reach the step as weights of mean 1 too, so what counts most in a sample is taken for white.
    """
    flat = mask.flatten(1).float()
    rest = flat.amax(dim=1, keepdim=True) - flat
    # an all black mask has no weights at all: everything is outside
    rest = torch.where(flat.amax(dim=1, keepdim=True) > 0, rest, torch.ones_like(rest))
    mean = rest.mean(dim=1, keepdim=True)
    return torch.where(mean > 0, rest / mean.clamp(min=1e-8), torch.zeros_like(rest)).view_as(mask)


def blanks_cleared(prepare: Prepare) -> Prepare:
    """Batches in which samples with the empty text show nothing: their latents are 0."""

    def cleared(batch: Batch) -> Batch:
        batch = prepare(batch)
        blank = [not text.strip() for text in batch.texts]
        if not any(blank):
            return batch
        is_blank = column(torch.tensor(blank).to(batch.latents.device, non_blocking=True), batch.latents)
        return replace(batch, latents=batch.latents.masked_fill(is_blank, 0.0))

    return cleared
