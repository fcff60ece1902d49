"""What a captioner is: the contract between the process that walks a folder and the models that extensions bring."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class Subject:
    """One picture that is to be described."""

    image: Image.Image
    """RGB, upright, scaled down to max_res."""
    prompt: str = ""
    """What the model is asked, filled in for this picture."""
    seed: int = 0
    """Of its random numbers: what is drawn for a picture does not depend on the others of its batch."""


class Captioner(Protocol):
    """A loaded model; what `CaptionerPlugin.build` returns."""

    def describe(self, subjects: Sequence[Subject], min_words: int = 1) -> list[str]:
        """One text per picture, in their order. With `min_words`, as long as the model can be made to.

        A ValueError says that a picture cannot be described; those beside it are then asked for one by one.
        """
        ...


def groups(keys: Iterable[Hashable]) -> list[list[int]]:
    """Indices with equal keys, in the order of their first appearance."""
    found: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return list(found.values())
