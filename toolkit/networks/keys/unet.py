"""Names of a U-Net's layers in the original release (CompVis, Stability), whose blocks are numbered through."""

from __future__ import annotations

import re
from collections.abc import Sequence

# parts of a residual block in diffusers, and in the original release
RESNET = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1"}
RESNET["conv_shortcut"] = "skip_connection"
OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
RESNETS_PER_BLOCK = 2
_INSIDE = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_DOWN = re.compile(r"down_blocks\.(\d+)\.downsamplers\.0\.conv")
_UP = re.compile(r"up_blocks\.(\d+)\.upsamplers\.0\.conv")


def original_unet_name(layer: str, upsamplers: Sequence[int]) -> str:
    """The original name of a layer of `UNet2DConditionModel`; `upsamplers` as in KeyNames."""
    if match := _INSIDE.fullmatch(layer):
        side, block, kind, index, rest = match.groups()
        if side == "down":
            number = 1 + int(block) * (RESNETS_PER_BLOCK + 1) + int(index)
        else:
            number = int(block) * (RESNETS_PER_BLOCK + 1) + int(index)
        group = "input_blocks" if side == "down" else "output_blocks"
        return f"{group}.{number}.{_inner(kind, rest)}"
    if match := _MIDDLE.fullmatch(layer):
        kind, index, rest = match.groups()
        place = 1 if kind == "attentions" else 2 * int(index)
        return f"middle_block.{place}.{RESNET.get(rest, rest)}"
    if match := _DOWN.fullmatch(layer):
        return f"input_blocks.{(int(match[1]) + 1) * (RESNETS_PER_BLOCK + 1)}.0.op"
    if (match := _UP.fullmatch(layer)) and int(match[1]) < len(upsamplers):
        last = int(match[1]) * (RESNETS_PER_BLOCK + 1) + RESNETS_PER_BLOCK
        return f"output_blocks.{last}.{upsamplers[int(match[1])]}.conv"
    return OUTSIDE.get(layer, layer)


def _inner(kind: str, rest: str) -> str:
    return f"0.{RESNET.get(rest, rest)}" if kind == "resnets" else f"1.{rest}"
