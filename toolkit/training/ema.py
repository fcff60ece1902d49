"""Exponential moving average of the trained weights (Polyak averaging)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Ema:
    """Shadow weights, fp32: after each update, shadow <- d * shadow + (1 - d) * weight.

    d = min(decay, (1 + n) / (10 + n)) at update n, so that the average leaves the starting weights early in a run.
    """

    def __init__(self, params: Sequence[Tensor], decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.shadow = [param.detach().clone() for param in params]

    @torch.no_grad()
    def update(self, params: Sequence[Tensor]) -> None:
        """Take one optimizer step into the average."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self.shadow, [param.detach() for param in params], 1 - decay)

    @contextmanager
    def applied(self, params: Sequence[Tensor]) -> Iterator[None]:
        """Averaged weights in the model inside the block, the trained ones after it."""
        self._swap(params)
        try:
            yield
        finally:
            self._swap(params)

    @torch.no_grad()
    def _swap(self, params: Sequence[Tensor]) -> None:
        for param, shadow in zip(params, self.shadow, strict=True):
            kept = param.detach().clone()
            param.copy_(shadow)
            shadow.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` continues from."""
        return {"num_updates": self.num_updates, "shadow": [shadow.cpu() for shadow in self.shadow]}

    def restart(self, params: Sequence[Tensor]) -> None:
        """Begin anew with these weights."""
        self.load_state_dict({"num_updates": 0, "shadow": params})

    @torch.no_grad()
    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue a saved average."""
        self.num_updates = saved["num_updates"]
        for mine, shadow in zip(self.shadow, saved["shadow"], strict=True):
            mine.copy_(shadow)
