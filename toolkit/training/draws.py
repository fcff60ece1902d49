"""The random numbers of a training step: one stream per sample, drawn on the host.

Results depend on (seed, epoch, sample) alone: not on the device, the number of workers or ranks, or where a run was
stopped. What the numbers are used for: noises.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import interpolate


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


@dataclass(frozen=True)
class Draws:
    """Which random numbers each sample gets at each visit; by default the time and the noise of `draw`."""

    lasting: bool = False
    """The same noise for a picture at every visit; its time changes."""
    levels: int = 0
    """Coarser noises that are added to the noise, see `add_levels`."""
    discount: float = 0.3
    """Factor of each level against the finer one before it."""
    candidates: int = 1
    """So many noises, of which the step chooses one: the others are `draws["candidates"]`, [B, n - 1, C, (f,) h, w]."""
    normals: tuple[str, ...] = ()
    """Names of standard normal numbers for each channel: `draws[name]`, [B, C]."""
    uniforms: tuple[str, ...] = ()
    """Names of numbers in [0, 1): `draws[name]`, [B]."""

    def make(
        self, seeds: Callable[[int, str], Sequence[int]], epoch: int, shape: Sequence[int]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """u [B], noise [B, *shape] and further numbers; `seeds(epoch, purpose)` gives those of the samples."""
        u, noise = draw(seeds(epoch, "noise"), shape)
        if self.lasting:
            epoch = 0
            noise = draw(seeds(epoch, "noise"), shape)[1]
        more: dict[str, Tensor] = {}
        if self.candidates > 1:
            more["candidates"] = draw(seeds(epoch, "candidates"), (self.candidates - 1, *shape))[1]
        if self.levels:
            for i, seed in enumerate(seeds(epoch, "levels")):
                generator = torch.Generator().manual_seed(seed)
                for each in chain(noise[i, None], *(others[i] for others in more.values())):
                    each.copy_(add_levels(each, self.levels, self.discount, generator))
        more.update({name: draw(seeds(epoch, name), shape[:1])[1] for name in self.normals})
        more.update({name: draw(seeds(epoch, name), ())[0].float() for name in self.uniforms})
        return u, noise, more


PLAIN_DRAWS = Draws()


def add_levels(noise: Tensor, levels: int, discount: float, generator: torch.Generator) -> Tensor:
    """Multi-resolution noise [C, (f,) h, w] of deviation 1 (Whitaker, 2023, "Multi-Resolution Noise").

    Level i is drawn on a grid r^i times coarser, r uniform in [2, 4), enlarged bilinearly and weighed by discount^i;
    the last one is that of a single row or column.
    """
    shape = noise.shape
    total = noise.reshape(1, -1, *shape[-2:]).clone()
    for i in range(levels):
        coarser = (2 + 2 * float(torch.rand((), generator=generator))) ** i
        h, w = max(1, int(shape[-2] / coarser)), max(1, int(shape[-1] / coarser))
        level = torch.randn(1, total.shape[1], h, w, generator=generator)
        total += interpolate(level, size=shape[-2:], mode="bilinear") * discount**i
        if h == 1 or w == 1:
            break
    return (total / total.std()).view(shape)
