"""The texts of a slider: targets and lines of prompts as scenes, each with a neutral, a positive and a negative text.

Pure functions of the config; `pool.py` makes latents for scenes, `steps.py` trains on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from math import factorial
from random import Random
from typing import TYPE_CHECKING

from toolkit.training.text_rows import Prompt

if TYPE_CHECKING:
    from extensions_built_in.sliders.sections import SliderTarget

MOST_ORDERS = 8
PLACE = "{}"


@dataclass(frozen=True)
class Scene:
    """What a step slides: from `negative` over `neutral` to `positive`."""

    neutral: str
    positive: str
    negative: str

    @property
    def texts(self) -> tuple[str, str, str]:
        """All three."""
        return self.neutral, self.positive, self.negative


def scenes_of(target: SliderTarget, lines: Sequence[str], seed: int) -> list[Scene]:
    """Every order of the target's texts with every line, each once.

    The lines are the attributes that a direction is asked to keep (Gandikota et al., 2023, "Concept Sliders",
    equation 8): they stand in all three texts alike.
    """
    positive = target.positive or target.target_class
    negative = target.negative or target.target_class
    orders = [_orders(text, seed) if target.shuffle else [text] for text in (target.target_class, positive, negative)]
    count = max(map(len, orders))
    found = [
        Scene(*(_joined(order[number % len(order)], line) for order in orders))
        for number in range(count)
        for line in lines or [""]
    ]
    return list(dict.fromkeys(found))


def _joined(text: str, line: str) -> str:
    """A line in the place that a text has for it, or after the text."""
    return text.replace(PLACE, line) if PLACE in text else f"{text} {line}".strip()


def _orders(text: str, seed: int) -> list[str]:
    """At most `MOST_ORDERS` orders of the comma-separated parts, the given one first."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if factorial(len(parts)) <= MOST_ORDERS:
        return list(dict.fromkeys(", ".join(order) for order in islice(permutations(parts), MOST_ORDERS))) or [text]
    rng, found = Random(f"{seed} {text}"), {", ".join(parts): None}
    while len(found) < MOST_ORDERS:
        found[", ".join(rng.sample(parts, len(parts)))] = None
    return list(found)


def prompt_of(text: str) -> Prompt:
    """A text for the text encoders; the empty one is the unconditional one."""
    return Prompt(text, negative=not text)
