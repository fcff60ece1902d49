"""How large each layer's update is: rank and alpha of Linear layers, of convolutions, and per block."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

UNET_BLOCKS = 25
"""Numbers that a U-Net takes: 0 for what lies outside of its blocks, 1-11 down, 12 the middle, 13-24 up (kohya)."""
_UNET = re.compile(
    r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|motion_modules|downsamplers|upsamplers)\.(\d+)"
)


class Size(NamedTuple):
    """Of one layer's update, which is multiplied by alpha / rank."""

    rank: int
    alpha: float


@dataclass(frozen=True)
class Ranks:
    """Which size each layer gets; a rank of 0 leaves a layer out."""

    linear: int
    alpha: float
    conv: int = 0
    """Of convolutions larger than 1x1; the others count as Linear layers."""
    conv_alpha: float = 0.0
    """0: the rank."""
    block_linear: Sequence[int] = ()
    """Rank per block; empty: `linear`."""
    block_alphas: Sequence[float] = ()
    """Alpha per block; empty: the rank of the block."""
    block_conv: Sequence[int] = ()
    block_conv_alphas: Sequence[float] = ()

    def without_blocks(self) -> Ranks:
        """The same for a module whose blocks are not counted: a text encoder."""
        return replace(self, block_linear=(), block_alphas=(), block_conv=(), block_conv_alphas=())

    def sizes(self, layers: Mapping[str, bool], among: Sequence[str]) -> dict[str, Size]:
        """The size of each of `layers` (name -> whether it is a large convolution); `among` are all in the blocks.

        Raises ValueError if there are not as many numbers as blocks.
        """
        numbers: dict[str, int] = {}
        if self.block_linear:
            numbers, count = number_blocks(among)
            if count != len(self.block_linear):
                raise ValueError(
                    f"network.network_kwargs.block_dims: has {len(self.block_linear)} numbers, the model {count} blocks"
                )
        return {name: self._size(is_conv, numbers.get(name)) for name, is_conv in layers.items()}

    def _size(self, is_conv: bool, block: int | None) -> Size:
        ranks = self.block_conv if is_conv else self.block_linear
        alphas = self.block_conv_alphas if is_conv else self.block_alphas
        if block is None or not ranks:
            rank, alpha = (self.conv, self.conv_alpha) if is_conv else (self.linear, self.alpha)
        else:
            rank, alpha = ranks[block], alphas[block] if alphas else 0.0
        return Size(rank, alpha or float(rank))


def number_blocks(names: Sequence[str]) -> tuple[dict[str, int], int]:
    """(block number per name, number of blocks): a U-Net's 25, else blocks of any kind in their order."""
    if is_unet(names):
        return {name: _unet_block(name) for name in names}, UNET_BLOCKS
    blocks: dict[str, int] = {}
    numbers = {}
    for name in names:
        if found := re.match(r"(.*?\.\d+)\.", name):
            numbers[name] = blocks.setdefault(found[1], len(blocks))
    return numbers, len(blocks)


def is_unet(names: Sequence[str]) -> bool:
    """Whether these are the layers of a U-Net of diffusers."""
    return any(name.startswith(("down_blocks.", "mid_block.", "up_blocks.")) for name in names)


def _unet_block(name: str) -> int:
    if name.startswith("mid_block."):
        return 12
    found = _UNET.match(name)
    if not found:
        return 0
    place = 2 if found[3] in ("downsamplers", "upsamplers") else int(found[4])
    return 3 * int(found[2]) + place + (1 if found[1] == "down_blocks" else 13)
