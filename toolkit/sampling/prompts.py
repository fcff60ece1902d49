"""What is sampled: the section's prompts or samples[], with inline flags, as a list of complete `SamplePrompt`s."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.sampling.prompt_flags import read_flags

_log = logging.getLogger(__name__)
_SMALLEST = 64


@dataclass(frozen=True)
class SamplePrompt:
    """One picture to make, the same at every step of the run."""

    prompt: str
    negative: str = ""
    width: int = 512
    height: int = 512
    seed: int = 0
    steps: int = 20
    guidance: float = 7.0
    network_multiplier: float = 1.0
    index: int = 0
    """Place in the config's list, counted with the items that are left out."""


def read_prompts(
    *,
    prompts: Sequence[str | None] = (),
    samples: Sequence[Mapping[str, Any]] | None = None,
    neg: str | bool | None = None,
    seed: int = 0,
    walk_seed: bool = False,
    width: int = 512,
    height: int = 512,
    guidance_scale: float = 7.0,
    sample_steps: int = 20,
    network_multiplier: float = 1.0,
    trigger: str | None = None,
    name: str = "",
    multiple: int = 8,
    rng: random.Random | None = None,
    notice: Callable[[str], None] = _log.warning,
) -> list[SamplePrompt]:
    """Return the pictures that the keys of a sample section ask for.

    An inline flag wins over a key of its item, and that over the section's. Seed -1 is drawn here, once, so that the
    pictures of all steps compare. ValueError for a flag without a usable value.
    """
    rng = rng or random.SystemRandom()
    section = {
        "neg": neg,
        "width": width,
        "height": height,
        "guidance_scale": guidance_scale,
        "sample_steps": sample_steps,
        "network_multiplier": network_multiplier,
    }
    first_seed = rng.getrandbits(32) if seed == -1 else seed
    found = []
    for index, item in enumerate(samples if samples else [{"prompt": prompt} for prompt in prompts]):
        if item.get("prompt") is None:
            continue
        where = f"sample prompt {index + 1}"
        text, flags = read_flags(str(item["prompt"]), where, notice)
        own = {key: value for key, value in item.items() if value is not None}
        merged = {**section, "seed": first_seed + index * walk_seed, **own, **flags}
        found.append(_sample_prompt(text, merged, index, trigger or "", name, multiple, rng, where, notice))
    return found


def _sample_prompt(
    text: str,
    values: Mapping[str, Any],
    index: int,
    trigger: str,
    name: str,
    multiple: int,
    rng: random.Random,
    where: str,
    notice: Callable[[str], None],
) -> SamplePrompt:
    """Return the prompt with placeholders, seed and size filled in."""
    size = values["width"], values["height"]
    fitted = fit_size(*size, multiple)
    if fitted != size:
        notice(f"{where}: {size[0]}x{size[1]} becomes {fitted[0]}x{fitted[1]}, sides are multiples of {multiple} here")
    negative = values["neg"] if isinstance(values["neg"], str) else ""
    return SamplePrompt(
        prompt=_fill(text, trigger, name),
        negative=_fill(negative, trigger, name),
        width=fitted[0],
        height=fitted[1],
        seed=rng.getrandbits(32) if values["seed"] == -1 else values["seed"],
        steps=values["sample_steps"],
        guidance=float(values["guidance_scale"]),
        network_multiplier=float(values["network_multiplier"]),
        index=index,
    )


def fit_size(width: int, height: int, multiple: int) -> tuple[int, int]:
    """Return the sides rounded down to multiples, each at least 64 pixels (or the next multiple above)."""
    least = -(-_SMALLEST // multiple) * multiple
    return max(width // multiple * multiple, least), max(height // multiple * multiple, least)


def _fill(text: str, trigger: str, name: str) -> str:
    return text.replace("[trigger]", trigger).replace("[name]", name)
