"""What a data set's keys say about each of its samples, in plain values; shared by all of them."""

from dataclasses import dataclass

from toolkit.data.caption import CaptionRule
from toolkit.data.frames import FrameRule
from toolkit.data.pictures.augment import Augment
from toolkit.data.pictures.image import WHITE, Color
from toolkit.data.pictures.masks import MaskRule

PLAIN_CAPTION = CaptionRule()


@dataclass(frozen=True)
class Treatment:
    """How the pictures of one data set become samples, apart from their sizes."""

    dataset: int = 0
    """Number of the data set in the config."""
    batch_size: int = 1
    weight: float = 1.0
    """Factor of the loss."""
    background: Color = WHITE
    """Seen through transparent parts."""
    strict: bool = False
    """Whether a broken picture ends the run."""
    is_reg: bool = False
    """Regularization pictures: their batches come in turn with those of the others."""
    keeps_base: bool = False
    """Whether the network should answer as the model without it does, instead of what the pictures show."""
    strength: float = 1.0
    """How strongly the network acts on these pictures while it learns from them."""
    kind: str = ""
    """What the trigger word is a kind of, where that is not the same for all data sets."""
    caption: CaptionRule = PLAIN_CAPTION
    frames: FrameRule | None = None
    """Which frames a model for video gets; None for a model for pictures."""
    scale: float = 1.0
    """Pictures count as so much larger."""
    random_crop: bool = False
    random_scale: bool = False
    """The crop is of a random size too."""
    augment: Augment | None = None
    """How pixels are changed after the crop."""
    clip_augment: Augment | None = None
    """How pictures for a vision adapter are changed."""
    mask: MaskRule | None = None
    """Where the loss counts; None: everywhere alike."""
    guidance_type: str = ""
    """How the pictures of `Item.pair` are used; empty if there are none."""
    num_variants: int = 8
    """So many versions of a sample are cached and take turns, where something about it is random."""

    @property
    def is_random(self) -> bool:
        """Whether the pixels differ from epoch to epoch."""
        return self.random_crop or self.random_scale or self.augment is not None

    def view(self) -> dict[str, object]:
        """Everything here that decides pixels and mask, as plain JSON values; what else does is told by the item."""
        return {
            "background": list(self.background),
            "scale": self.scale if self.random_scale else 1.0,
            "random_crop": self.random_crop,
            "random_scale": self.random_scale,
            "augment": self.augment.view() if self.augment else None,
            "mask": self.mask.view() if self.mask else None,
        }


PLAIN = Treatment()
