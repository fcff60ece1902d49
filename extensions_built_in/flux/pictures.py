"""Reference and control pictures of the FLUX.1 variants: PIL pictures to pixels, masks and conditions.

`encode` is the family's `encode_image`, pixels [B, 3, H, W] to latents [B, C, h, w]; a latent cell has `cell` x `cell`
pixels, and a token 2 x 2 cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from toolkit.data.pictures.image import fit, to_pixels
from toolkit.models.conditions import Row

Encode = Callable[[Tensor], Tensor]
Size = tuple[int, int]
"""Height and width in pixels."""


def encode_references(
    encode: Encode, images: Sequence[Image.Image], target: Size, cell: int, *, max_pixels: int, match_target: bool
) -> Row:
    """`reference.0`, ... [C, h, w]: each picture at its own size, or with the area of the target."""
    area = math.prod(target) if match_target else None
    sizes = [reference_size((image.height, image.width), 2 * cell, max_pixels, area) for image in images]
    return {
        f"reference.{index}": encode(colors(image, size))[0]
        for index, (image, size) in enumerate(zip(images, sizes, strict=True))
    }


def encode_control(encode: Encode, images: Sequence[Image.Image], target: Size, cell: int) -> Row:
    """`control` [C, h, w]: the latents of a depth map, an edge map, ..."""
    (image,) = images
    return {"control": encode(colors(image, target))[0]}


def encode_fill(encode: Encode, images: Sequence[Image.Image], target: Size, cell: int) -> Row:
    """`control` [C + p*p, h, w]: the picture with gray holes as latents, and the p x p mask pixels of each cell."""
    (image,) = images
    hole = holes(image, target).round()
    latents = encode(colors(image, target) * (1 - hole))
    mask = rearrange(hole, "b 1 (h p) (w q) -> b (p q) h w", p=cell, q=cell)
    return {"control": torch.cat([latents, mask.to(latents.device)], dim=1)[0]}


def encode_flex2(encode: Encode, images: Sequence[Image.Image], target: Size, cell: int) -> Row:
    """`control` [2 C + 1, h, w] of a picture with holes, a control picture without, or both.

    Channels: latents of what is kept, mask (1 is to be painted), latents of the control.
    """
    holed = [image for image in images if has_holes(image)]
    plain = [image for image in images if not has_holes(image)]
    if len(holed) > 1 or len(plain) > 1:
        raise ValueError("Flex.2 takes one control picture and one to inpaint (with an alpha channel) per sample")
    latents = [encode(colors(image, target)) for image in (*holed, *plain)]
    kept, mask = torch.zeros_like(latents[0]), torch.ones_like(latents[0][:, :1])
    if holed:
        hole = holes(holed[0], target).to(mask.device)
        mask = interpolate(hole, size=mask.shape[-2:], mode="bilinear", align_corners=False)
        kept = latents[0] * (1 - mask)
    control = latents[-1] if plain else torch.zeros_like(kept)
    return {"control": torch.cat([kept, mask, control], dim=1)[0]}


def empty_flex2(noisy: Tensor) -> Tensor:
    """The `control` [B, 2 C + 1, h, w] of samples without pictures: everything is to be painted."""
    return torch.cat([torch.zeros_like(noisy), torch.ones_like(noisy[:, :1]), torch.zeros_like(noisy)], dim=1)


def reference_size(size: Size, multiple: int, max_pixels: int, area: int | None = None) -> Size:
    """(height, width) for a picture of this size: at most `max_pixels`, or about `area`; sides are multiples.

    The aspect ratio stays but for rounding.
    """
    wanted = area or min(math.prod(size), max_pixels)
    scale = math.sqrt(wanted / math.prod(size)) / multiple
    height, width = (max(1, round(side * scale) if area else math.floor(side * scale)) * multiple for side in size)
    return height, width


def colors(image: Image.Image, size: Size) -> Tensor:
    """[1, 3, H, W] in -1..1; what is transparent keeps its color."""
    height, width = size
    return to_pixels(fit(image.convert("RGB"), (width, height))[None])


def has_holes(image: Image.Image) -> bool:
    """Whether the picture has an alpha channel."""
    return "A" in image.getbands()


def holes(image: Image.Image, size: Size) -> Tensor:
    """[1, 1, H, W] in 0..1: 1 where the picture is transparent, and to be painted."""
    if not has_holes(image):
        raise ValueError("a picture to inpaint needs an alpha channel: transparent is what will be painted")
    height, width = size
    alpha = image.getchannel("A").resize((width, height), Image.Resampling.BILINEAR)
    return 1 - torch.from_numpy(np.asarray(alpha, dtype=np.float32))[None, None] / 255
