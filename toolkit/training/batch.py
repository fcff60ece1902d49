"""What one training step sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
    is_reg: bool = False
    """Whether these are regularization pictures; no batch has both kinds."""
    draws: Mapping[str, Tensor] = field(default_factory=dict)
    """Further random numbers, see `toolkit/training/draws.py`."""
    others: Mapping[str, Conditions] = field(default_factory=dict)
    """The conditions of other texts for the same samples, by the name of their companion; `with_other` takes them."""
    other_texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """These texts. Where the text encoder is trained, they are all there is."""
    strength: float = 1.0
    """How strongly the network acts on these samples."""
    keeps_base: bool = False
    """Whether the network should answer as the model without it does."""

    is_spare: bool = False
    """Whether it only keeps this rank in step with others that have samples: its weight is 0."""

    def __len__(self) -> int:
        return len(self.u)

    def with_other(self, name: str) -> Batch:
        """The same samples with their other texts of that name."""
        return replace(self, cond=replaced(self.cond, self.others[name]), texts=self.other_texts[name])

    @property
    def num_given(self) -> int:
        """How many of the first latent frames are given to the network, and so not trained."""
        given = self.cond.get("given")
        return 0 if given is None else given.shape[2]

    @property
    def num_samples(self) -> int:
        """How many samples of it are trained."""
        return 0 if self.is_spare else len(self)

    def as_spare(self) -> Batch:
        """The same with weight 0: for a rank that has no batch of its own when the others have."""
        return replace(self, weight=torch.zeros_like(self.weight), is_spare=True)

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
            draws={name: numbers.to(device, non_blocking=True) for name, numbers in batch.draws.items()},
            others={name: cond.to(device, torch.float32) for name, cond in batch.others.items()},
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
            draws={name: pinned(numbers) for name, numbers in self.draws.items()},
            others={name: cond.pin() for name, cond in self.others.items()},
        )

    def tensors(self) -> list[Tensor]:
        """All of it but `u`."""
        extras = [tensor for tensor in (self.mask, self.pair_latents) if tensor is not None]
        extras += [tensor for cond in self.others.values() for tensor in cond.parts.values()]
        return [self.latents, self.weight, self.noise, *self.cond.parts.values(), *extras, *self.draws.values()]


def replaced(cond: Conditions, text: Conditions) -> Conditions:
    """The conditions with those of other texts in the place of their own."""
    lengths = {name: each for name, each in cond.lengths.items() if name not in text.parts}
    return Conditions({**cond.parts, **text.parts}, {**lengths, **text.lengths})
