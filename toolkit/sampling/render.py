"""Prompts to pictures with a loaded family, the same way for every family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import diffusers
import torch
from PIL import Image
from torch import Tensor

from toolkit.context import Context
from toolkit.models.conditions import Conditions, Row, collate
from toolkit.models.family import Facts, Family
from toolkit.sampling.prompts import SamplePrompt
from toolkit.sampling.sample import sample

BATCH_PIXELS = 1024 * 1024


def make_scheduler(facts: Facts) -> object:
    """The checkpoint's own scheduler, from its configuration."""
    cls = getattr(diffusers, facts.scheduler["_class_name"])
    return cls.from_config(dict(facts.scheduler))


def texts_of(prompts: Sequence[SamplePrompt], facts: Facts) -> tuple[list[str], list[str]]:
    """(prompts, negative prompts) that must be encoded before pictures can be made."""
    positive = list(dict.fromkeys(prompt.prompt for prompt in prompts))
    negative = list(dict.fromkeys(prompt.negative or "" for prompt in prompts if needs_negative(prompt, facts)))
    return positive, negative


def needs_negative(prompt: SamplePrompt, facts: Facts) -> bool:
    """Whether the prompt takes a second pass for classifier-free guidance."""
    return facts.guidance == "cfg" and prompt.guidance > 1


def groups(prompts: Sequence[SamplePrompt]) -> Iterator[list[int]]:
    """Indices of prompts that can be made in one batch, of about one megapixel."""
    waiting: dict[tuple[object, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        key = (prompt.width, prompt.height, prompt.steps, prompt.guidance, prompt.network_multiplier)
        waiting.setdefault(key, []).append(index)
    for (width, height, *_), indices in waiting.items():
        size = max(1, BATCH_PIXELS // (int(str(width)) * int(str(height))))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def render(
    family: Family,
    context: Context,
    prompts: Sequence[SamplePrompt],
    positive: Mapping[str, Row],
    negative: Mapping[str, Row],
) -> list[Tensor]:
    """Latents [1, C, h, w] for prompts of one group (see `groups`), whose texts' rows are given."""
    facts, first = family.facts, prompts[0]
    shape = (facts.channels, first.height // facts.stride, first.width // facts.stride)
    noise = torch.stack([seeded_noise(prompt.seed, shape) for prompt in prompts]).to(context.device)
    cond = _conditions([positive[prompt.prompt] for prompt in prompts], context)
    no = None
    if facts.guidance == "embedded":
        cond = cond.plus(guidance=torch.full((len(prompts),), float(first.guidance), device=context.device))
    elif needs_negative(first, facts):
        no = _conditions([negative[prompt.negative or ""] for prompt in prompts], context)
    with context.autocast():
        latents = sample(family, make_scheduler(facts), noise, cond, no, first.guidance, first.steps)
    return list(latents.split(1))


def seeded_noise(seed: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise [*shape] that is the same on every device, and the same as diffusers' for this seed."""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))[0]


@torch.no_grad()
def decode(family: Family, latents: Sequence[Tensor]) -> list[Image.Image]:
    """Latents [1, C, h, w] -> pictures. The VAE must be loaded."""
    return [picture(family.decode(one)[0]) for one in latents]


def picture(pixels: Tensor) -> Image.Image:
    """[3, H, W] in -1..1 -> picture."""
    levels = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())


def _conditions(rows: Sequence[Row], context: Context) -> Conditions:
    return collate(rows).to(context.device, torch.float32)
