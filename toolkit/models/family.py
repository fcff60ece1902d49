"""What a model family is: the facts of a loaded instance and the verbs that training and sampling call.

Every family is one folder under `extensions_built_in/` (or a user's extension) whose plugin's `build()` returns an
object with these members. Shapes: `toolkit/shapes.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from toolkit.models.conditions import Conditions, Row
    from toolkit.models.parts import Parts


@dataclass(frozen=True)
class Trainable:
    """One module that can be trained, and how its weights are named in a file."""

    name: str
    """Attribute path from the family, e.g. "denoiser"."""
    blocks: str
    """Regular expression over layer names: the layers that a network adapts unless `transformer_only` is false."""
    prefix: str
    """Before every key of a LoRA file in diffusers format: "transformer." or "unet."."""
    file: str = ""
    """Suffix of the file name, e.g. "_high_noise"."""


@dataclass(frozen=True)
class Facts:
    """What is true of the loaded checkpoint, read from its configuration files."""

    channels: int
    """C of the latents."""
    stride: int
    """H / h: pixels per latent cell."""
    multiple: int
    """Pixel sizes of training images are multiples of this."""
    base_model: str
    """`ss_base_model_version` in the header of saved files."""
    prediction: str = "flow"
    """What the network predicts: "flow", "epsilon" or "v"."""
    frame_stride: int = 0
    """0: image latents [C, h, w]. Else [C, f, h, w] with F = (f - 1) * frame_stride + 1."""
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    """The checkpoint's scheduler_config.json."""
    trainables: tuple[Trainable, ...] = ()
    guidance: str = "cfg"
    """How `sample.guidance_scale` acts: "cfg", a second pass with the negative prompt, or "embedded", an input."""
    references: str = "none"
    """What the data layer must offer: "none", "tokens", "channels" or "first_frame"."""


class Family(Protocol):
    """The verbs of a model family. No verb casts `t`, draws random numbers or turns gradients off."""

    parts: Parts
    pipeline: ClassVar[str]
    """Name of the diffusers pipeline that loads the checkpoint and its LoRAs."""
    needs: ClassVar[Mapping[str, tuple[str, ...]]]
    """verb -> names of the parts to hold with `family.parts.using(*needs[verb])` while calling it."""

    @property
    def facts(self) -> Facts: ...

    @property
    def denoiser(self) -> torch.nn.Module: ...

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] in -1..1 -> normalized latents [B, C, h, w], mode of the posterior."""
        ...

    def encode_prompt(
        self, texts: list[str], images: list[Image.Image] | None = None, negative: bool = False
    ) -> list[Row]:
        """One unbatched row of text conditions per text."""
        ...

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Conditions that the VAE makes from a sample's pictures; `shape` is that of its target latents."""
        ...

    def predict(self, noisy: torch.Tensor, t: torch.Tensor, cond: Conditions) -> torch.Tensor:
        """The answer for `noisy` [B, C, h, w] at times `t` [B] in 0..1 (1 is noise): what `Path.wanted` says."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Normalized latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""
        ...

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Arguments of `scheduler.set_timesteps` for latents of `shape`."""
        ...

    def guide(self, yes: torch.Tensor, no: torch.Tensor, scale: float, t: torch.Tensor) -> torch.Tensor:
        """Classifier-free guidance (Ho and Salimans, 2022) of the prediction `yes` away from `no`."""
        ...
