"""The random numbers of a training step: one stream per sample, drawn on the host.

Results depend on (seed, epoch, sample) alone: not on the device, the number of workers or ranks, or where a run was
stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draw(seeds: Sequence[int], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Per sample: u in [0, 1) as [B], float64, and standard normal noise [B, *shape], float32."""
    noise = torch.empty(len(seeds), *shape)
    u = torch.empty(len(seeds), dtype=torch.float64)
    generator = torch.Generator()
    for i, seed in enumerate(seeds):
        generator.manual_seed(seed)
        u[i] = torch.rand((), generator=generator, dtype=torch.float64)
        noise[i].normal_(generator=generator)
    return u, noise
