"""What a model family is: the facts of a loaded instance and the verbs that training and sampling call.

Every family is one folder under `extensions_built_in/` (or a user's extension) whose plugin's `build()` returns an
object with these members. Shapes: `toolkit/shapes.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from toolkit.models.conditions import Conditions, Row
    from toolkit.models.parts import Parts


@dataclass(frozen=True)
class Trainable:
    """One module that can be trained, and how its weights are named in a file."""

    part: str
    """Name of the part, e.g. "transformer", "unet", "transformer_2" or "text_encoder"."""
    blocks: str
    """Regular expression over layer names: the layers that a network adapts unless `transformer_only` is false."""
    prefix: str
    """Before every key of a LoRA file in diffusers format: "transformer.", "unet." or "text_encoder."."""
    file: str = ""
    """Suffix of the file name, e.g. "_high_noise"."""
    times: tuple[float, float] = (0.0, 1.0)
    """The times t (1 is noise) at which the module answers; experts share them out."""

    @property
    def is_text_encoder(self) -> bool:
        """Whether it is trained only if `train.train_text_encoder` asks for it."""
        return self.part.startswith("text_encoder")


@dataclass(frozen=True)
class Vocabulary:
    """A text encoder that can be taught new words, with its tokenizer: both are parts of `needs["encode_prompt"]`.

    The family gets its token ids from `toolkit/models/text.py`, which knows of words that are several tokens.
    """

    tokenizer: str
    encoder: str
    key: str
    """Name of the vectors in the file of an embedding."""


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
    """0: image latents [C, h, w]. Else [C, f, h, w] with F = (f - 1) * frame_stride + 1; an image is one frame."""
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    """The checkpoint's scheduler_config.json."""
    trainables: tuple[Trainable, ...] = ()
    """The denoiser, or its experts; then the text encoders that can be trained with it."""
    guidance: str = "cfg"
    """How `sample.guidance_scale` acts: "cfg", a second pass with the negative prompt, or "embedded", an input."""
    references: str = "none"
    """What the data layer must offer to `encode_condition`: "none"; "tokens", pictures at their own size; "channels",
    pictures cropped like the target; or "first_frame", the target's first frame."""
    needs_references: bool = False
    """Whether a sample without them is an error."""
    prompt_images: bool = False
    """Whether `encode_prompt` looks at the references too."""
    numbers: tuple[str, ...] = ()
    """Numbers of a sample that the network takes: "size" [6], original height and width, top and left of the crop,
    target height and width; "fps" []."""
    text_length: int = 0
    """How many tokens of a caption the network sees, where its tokenizers let more through; 0: as many."""
    vocabularies: tuple[Vocabulary, ...] = ()
    """Where an embedding (textual inversion) puts its words: every text encoder that reads captions, or none."""

    @property
    def denoisers(self) -> tuple[Trainable, ...]:
        """What is trained that is no text encoder: the denoiser, or its experts."""
        return tuple(trainable for trainable in self.trainables if not trainable.is_text_encoder)

    @property
    def made_multiple(self) -> int:
        """The same for pictures that are made: at most two latent cells, where trained ones may be coarser."""
        return min(self.multiple, self.stride * 2)


class Family(Protocol):
    """The verbs of a model family. No verb casts `t`, draws random numbers or turns gradients off."""

    parts: Parts

    @property
    def pipeline(self) -> str:
        """Name of the diffusers pipeline that loads the checkpoint and its LoRAs."""
        ...

    @property
    def needs(self) -> Mapping[str, tuple[str, ...]]:
        """verb -> names of the parts to hold with `family.parts.using(*needs[verb])` while calling it."""
        ...

    @property
    def facts(self) -> Facts: ...

    @property
    def denoiser(self) -> torch.nn.Module:
        """The parts of `needs["predict"]`: one module, or an `nn.ModuleDict` of experts by part."""
        ...

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 3, (F,) H, W] in -1..1 -> normalized latents [B, C, (f,) h, w], mode of the posterior.

        A video family takes [B, 3, H, W] as one frame.
        """
        ...

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """One unbatched, unpadded row of text conditions per text; `images`: the references of each."""
        ...

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Conditions that the VAE makes from one sample's pictures; `shape` [C, (f,) h, w] is that of its latents."""
        ...

    def predict(self, noisy: torch.Tensor, t: torch.Tensor, cond: Conditions) -> torch.Tensor:
        """The answer for `noisy` [B, C, (f,) h, w] at times `t` [B] in 0..1 (1 is noise): what `Path.wanted` says."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Normalized latents [B, C, (f,) h, w] -> pixels [B, 3, (F,) H, W] in -1..1."""
        ...

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Arguments of `scheduler.set_timesteps` for latents of `shape`."""
        ...

    def guide(self, yes: torch.Tensor, no: torch.Tensor, scale: float, t: torch.Tensor) -> torch.Tensor:
        """Classifier-free guidance (Ho and Salimans, 2022) of the prediction `yes` away from `no`."""
        ...
