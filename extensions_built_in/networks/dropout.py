"""Dropout inside a LoRA layer while it is trained: of single ranks, and of a layer's whole update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def drop_ranks(down: nn.Module, chance: float) -> None:
    """Leave out each rank of each sample with this chance, and weigh the others up; `down` is a LoRA's A."""

    def drop(module: nn.Module, inputs: Any, hidden: Tensor) -> Tensor | None:
        if not module.training:
            return None
        is_conv = isinstance(module, nn.Conv2d)
        rank = hidden.shape[1 if is_conv else -1]
        middle = () if is_conv else (1,) * (hidden.dim() - 2)
        shape = (len(hidden), *middle, rank, *((1, 1) if is_conv else ()))
        kept = torch.rand(shape, device=hidden.device) >= chance
        return hidden * kept / (1 - chance)

    if chance:
        down.register_forward_hook(drop)


def drop_module(up: nn.Module, chance: float) -> None:
    """Leave out the whole update with this chance; `up` is a LoRA's B."""

    def drop(module: nn.Module, inputs: Any, update: Tensor) -> Tensor | None:
        is_dropped = module.training and torch.rand(()).item() < chance
        return torch.zeros_like(update) if is_dropped else None

    if chance:
        up.register_forward_hook(drop)
