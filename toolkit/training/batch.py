"""What one training step sees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.models.conditions import Conditions, pinned


@dataclass(frozen=True)
class Batch:
    """Samples of one bucket."""

    latents: Tensor
    """[B, C, (f,) h, w], normalized."""
    cond: Conditions
    weight: Tensor
    """[B]: factor of each sample's loss."""
    u: Tensor
    """[B], float64, on the host: uniform numbers that decide the training times."""
    noise: Tensor
    """Like latents, standard normal."""
    texts: tuple[str, ...] = ()
    """The captions; "" is the unconditional text. `cond` lacks their rows where the text encoder is trained."""

    def __len__(self) -> int:
        return len(self.u)

    def to(self, device: torch.device) -> Batch:
        """On `device` as float32, copied asynchronously through pinned memory to a GPU; `u` stays on the host."""
        batch = self.pin() if device.type == "cuda" else self
        return replace(
            batch,
            latents=batch.latents.to(device, torch.float32, non_blocking=True),
            cond=batch.cond.to(device, torch.float32),
            weight=batch.weight.to(device, non_blocking=True),
            noise=batch.noise.to(device, non_blocking=True),
        )

    def pin(self) -> Batch:
        """In page-locked memory, as far as it is in host memory."""
        return replace(
            self,
            latents=pinned(self.latents),
            cond=self.cond.pin(),
            weight=pinned(self.weight),
            noise=pinned(self.noise),
        )
