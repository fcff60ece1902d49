"""Where the loss of a picture counts: a gray picture of its size, from a file or from its alpha channel."""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class MaskRule:
    """How masks are read."""

    alpha: bool = False
    """The alpha channel of the picture itself is the mask."""
    invert: bool = False
    """Black is trained instead of white."""
    min_value: float = 0.0
    """Weight (0..1) of what the mask leaves out; the mask's values are spread between this and 1."""

    def view(self) -> dict[str, object]:
        """As plain JSON values."""
        return {"alpha": self.alpha, "invert": self.invert, "min_value": self.min_value}


def to_mask(image: Image.Image, rule: MaskRule) -> Image.Image:
    """Gray values (mode L): 255 where the loss counts fully.

    A picture without alpha channel counts everywhere where that channel is the mask; transparent parts of a mask file
    count as black.
    """
    if rule.alpha:
        has_alpha = image.has_transparency_data
        gray = image.convert("RGBA").getchannel("A") if has_alpha else Image.new("L", image.size, 255)
    else:
        gray = image.convert("L")
    if not rule.invert:
        return gray
    return Image.fromarray(255 - np.asarray(gray))
