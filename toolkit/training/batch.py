"""What one training step sees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.models.conditions import Conditions, moved, pinned


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
    mask: Tensor | None = None
    """[B, 1, (1,) h, w], mean 1 for each sample: factor of the loss of each latent cell."""
    pair_latents: Tensor | None = None
    """Like latents: the other picture of each guidance pair."""

    def __len__(self) -> int:
        return len(self.u)

    def to(self, device: torch.device) -> Batch:
        """On `device` as float32, copied asynchronously through pinned memory to a GPU; `u` stays on the host."""
        batch = self.pin() if device.type == "cuda" else self
        return replace(
            batch,
            latents=moved(batch.latents, device, torch.float32),
            cond=batch.cond.to(device, torch.float32),
            weight=batch.weight.to(device, non_blocking=True),
            noise=batch.noise.to(device, non_blocking=True),
            mask=None if batch.mask is None else batch.mask.to(device, non_blocking=True),
            pair_latents=(None if batch.pair_latents is None else moved(batch.pair_latents, device, torch.float32)),
        )

    def pin(self) -> Batch:
        """In page-locked memory, as far as it is in host memory."""
        return replace(
            self,
            latents=pinned(self.latents),
            cond=self.cond.pin(),
            weight=pinned(self.weight),
            noise=pinned(self.noise),
            mask=None if self.mask is None else pinned(self.mask),
            pair_latents=None if self.pair_latents is None else pinned(self.pair_latents),
        )

    def tensors(self) -> list[Tensor]:
        """All of it but `u`."""
        extras = [tensor for tensor in (self.mask, self.pair_latents) if tensor is not None]
        return [self.latents, self.weight, self.noise, *self.cond.parts.values(), *extras]
