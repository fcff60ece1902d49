"""Requests to pictures and videos with a loaded family, the same way for every family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from toolkit.context import Context
from toolkit.models.conditions import Conditions, Row, collate
from toolkit.models.family import Family
from toolkit.sampling.request import Request, groups, latent_shape
from toolkit.sampling.sample import Advance, sample
from toolkit.sampling.schedulers import make_scheduler
from toolkit.sampling.start import Start

Frames = list[Image.Image]
"""A video, or of a picture the only frame."""
Scaled = Callable[[float], AbstractContextManager[object]]
"""A block in which the networks act with so many times their strength."""


def render_all(
    family: Family,
    context: Context,
    requests: Sequence[Request],
    scaled: Scaled,
    sampler: str | None = None,
    most: int | None = None,
    advance: Advance | None = None,
) -> list[Tensor]:
    """Latents [1, C, (f,) h, w] for requests of any kind, `most` of them at once; the denoiser must be loaded."""
    latents: dict[int, Tensor] = {}
    for strength in dict.fromkeys(request.prompt.network_multiplier for request in requests):
        places = [n for n, request in enumerate(requests) if request.prompt.network_multiplier == strength]
        with scaled(strength):
            for group in groups([requests[place] for place in places], most):
                made = render(family, context, [requests[places[number]] for number in group], sampler, advance)
                latents.update(zip((places[number] for number in group), made, strict=True))
    return [latents[place] for place in range(len(requests))]


def render(
    family: Family,
    context: Context,
    requests: Sequence[Request],
    sampler: str | None = None,
    advance: Advance | None = None,
) -> list[Tensor]:
    """Latents [1, C, (f,) h, w] for requests of one group (see `groups`)."""
    facts, first = family.facts, requests[0].prompt
    generators = [torch.Generator().manual_seed(request.prompt.seed) for request in requests]
    noise = torch.cat([seeded_noise(generator, latent_shape(first, facts)) for generator in generators])
    negative = [request.no for request in requests if request.no is not None]
    with context.autocast():
        latents = sample(
            family,
            make_scheduler(facts, sampler),
            noise.to(context.device),
            _conditions([request.row for request in requests], context),
            _conditions(negative, context) if negative else None,
            first.guidance,
            first.steps,
            first.guidance_rescale,
            generators,
            _start(requests, context),
            advance,
        )
    return list(latents.split(1))


def seeded_noise(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
    """Standard normal noise [1, *shape] of a host generator: the same on every device, and the same as diffusers'."""
    return torch.randn(1, *shape, generator=generator)


@torch.no_grad()
def decode(family: Family, latents: Sequence[Tensor]) -> list[Frames]:
    """Latents [1, C, (f,) h, w] -> frames. The VAE must be loaded."""
    return [frames_of(family.decode(one)[0]) for one in latents]


def frames_of(pixels: Tensor) -> Frames:
    """[3, (F,) H, W] in -1..1 -> one picture per frame."""
    levels = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    levels = levels if levels.ndim == 4 else levels[:, None]
    return [Image.fromarray(frame.numpy()) for frame in rearrange(levels, "c f h w -> f h w c").contiguous()]


def _start(requests: Sequence[Request], context: Context) -> Start | None:
    latents = [request.start for request in requests if request.start is not None]
    return Start(torch.cat(latents).to(context.device, torch.float32), requests[0].strength) if latents else None


def _conditions(rows: Sequence[Row], context: Context) -> Conditions:
    return collate(rows).to(context.device, torch.float32)
