"""A sample prompt together with the conditions it is made under, and which of them share a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.models.conditions import Row, signature
from toolkit.models.family import Facts
from toolkit.sampling.prompts import SamplePrompt

BATCH_PIXELS = 1024 * 1024


@dataclass(frozen=True)
class Request:
    """One picture or video to make."""

    prompt: SamplePrompt
    row: Row
    no: Row | None = None
    """The conditions of the negative prompt, where guidance takes a second pass."""
    start: Tensor | None = None
    """Latents [1, C, (f,) h, w] of the picture that is changed; None: it begins with noise."""
    strength: float = 1.0
    """How much of that picture is given up."""


def make_request(prompt: SamplePrompt, facts: Facts, text: Row, negative: Row | None, condition: Row) -> Request:
    """Join the rows of the text stage and the VAE stage with the numbers; the negative prompt sees the same pictures.

    `negative` is only used where `needs_negative` says so.
    """
    rest = {**condition, **numbers(prompt, facts)}
    no = {**negative, **rest} if negative is not None and needs_negative(prompt, facts) else None
    if facts.guidance == "embedded":
        rest["guidance"] = torch.tensor(float(prompt.guidance))
    return Request(prompt, {**text, **rest}, no)


def needs_negative(prompt: SamplePrompt, facts: Facts) -> bool:
    """Whether the prompt takes a second pass for classifier-free guidance."""
    return facts.guidance == "cfg" and prompt.guidance > 1


def numbers(prompt: SamplePrompt, facts: Facts) -> dict[str, Tensor]:
    """The numbers that the network takes, as of a picture that was made at this size and not cropped."""
    size = float(prompt.height), float(prompt.width)
    known = {"size": torch.tensor([*size, 0.0, 0.0, *size]), "fps": torch.tensor(float(prompt.fps))}
    return {name: known[name] for name in facts.numbers}


def latent_shape(prompt: SamplePrompt, facts: Facts) -> tuple[int, ...]:
    """[C, (f,) h, w]."""
    frames = ((prompt.num_frames - 1) // facts.frame_stride + 1,) if facts.frame_stride else ()
    return (facts.channels, *frames, prompt.height // facts.stride, prompt.width // facts.stride)


def groups(requests: Sequence[Request], most: int | None = None) -> Iterator[list[int]]:
    """Indices of requests that can be made in one batch, of `most` pictures, or of about one megapixel."""
    waiting: dict[tuple[object, ...], list[int]] = {}
    for index, request in enumerate(requests):
        prompt = request.prompt
        key = (
            (prompt.width, prompt.height, prompt.num_frames),
            (prompt.steps, prompt.guidance, prompt.guidance_rescale, prompt.network_multiplier),
            signature(request.row),
            request.no and signature(request.no),
            (request.start is None, request.strength),
        )
        waiting.setdefault(key, []).append(index)
    for indices in waiting.values():
        prompt = requests[indices[0]].prompt
        size = most or max(1, BATCH_PIXELS // (prompt.width * prompt.height * prompt.num_frames))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]
