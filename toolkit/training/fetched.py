"""A batch between the disk and the device: what threads have read, and how its samples are put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toolkit.data.item import Item
from toolkit.models.conditions import Conditions, Row


@dataclass(frozen=True)
class Fetched:
    """Samples of one bucket, encoded as far as the caches go."""

    items: list[Item]
    u: Tensor
    noise: Tensor
    draws: dict[str, Tensor]
    """Further random numbers."""
    latents: Tensor | None
    """From the cache."""
    pixels: np.ndarray | None
    """Without a cache, uint8 [B, (F,) H, W, 3]."""
    masks: list[Tensor | None]
    """[h, w] of each sample that has one."""
    pairs: list[Tensor | np.ndarray]
    """Latents of the other pictures of guidance pairs, or their pixels; empty if there are none."""
    rows: list[Row] | None
    """Of the texts."""
    texts: list[str]
    conditions: list[Row | list[Image.Image]]
    """Of the references, or the pictures to make them from."""
    numbers: list[Row]
    cond: Conditions | None
    """All of these together, where nothing of them is left to encode."""
    other_texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The texts of companions, by their name."""
    others: Mapping[str, Conditions] | None = None
    """Their conditions, where nothing of them is left to encode."""


def stack_masks(masks: Sequence[Tensor | None], latents: Tensor) -> Tensor | None:
    """Masks [h, w] as [B, 1, (1,) h, w]; ones for samples without, None if there is none."""
    if all(mask is None for mask in masks):
        return None
    cells = latents.shape[-2:]
    stacked = torch.stack([torch.ones(cells) if mask is None else mask for mask in masks])
    return stacked.reshape(len(masks), *[1] * (latents.ndim - 3), *cells)
