"""What the contract test of model families runs on: a case says how a variant's tiny checkpoint is made and what
diffusers does with it; a subject is the case on disk, with our family and the diffusers pipeline beside each other.

The promises themselves: tests/family_contract.py. The cases: tests/extensions_built_in/<family>_case.py.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image
from torch import Tensor

from toolkit.context import Context
from toolkit.models.conditions import Row, collate
from toolkit.models.family import Family
from toolkit.registry import get_registry
from toolkit.sampling.sample import sample
from toolkit.sampling.schedulers import make_scheduler

TEXTS = ("a red circle on a blue background", "two dogs")
NEGATIVE = "a photo of a cat, detailed"
STEPS = 4
FPS = 16


def unchanged(pipeline: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """For pipelines whose latents are ours."""
    return latents


def as_image(pictures: Sequence[Image.Image]) -> dict[str, Any]:
    """The usual argument for reference pictures."""
    return {"image": pictures[0] if len(pictures) == 1 else list(pictures)}


def load_plainly(pipeline: Any, files: Sequence[Path]) -> None:
    """One file, as users load it."""
    (file,) = files
    pipeline.load_lora_weights(file)


@dataclass(frozen=True)
class Case:
    """One variant of a family: how its tiny checkpoint is made, and what diffusers does where a family packs."""

    arch: str
    save: Callable[[Path], Path]
    latents: Callable[[Any, Tensor, int, int], Tensor] = unchanged
    """(pipeline, its "latent" output, height, width) -> normalized latents [B, C, (f,) h, w]."""
    encode_image: Callable[[Any, Tensor], Tensor] | None = None
    """(pipeline, pixels [B, 3, (F,) H, W]) -> normalized latents; may be None only with a reason in `skips`."""
    encode_prompt: Callable[[Any, list[str]], Mapping[str, Any]] | None = None
    """(pipeline, texts) -> the conditions: [B, ...], or a list with one tensor per text; None as above."""
    call: Mapping[str, Any] = field(default_factory=dict)
    """More arguments of the pipeline."""
    guidance: float = 3.5
    takes_guidance: bool = True
    """Whether the network has a guidance input (families with embedded guidance)."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """More keys of `model:`."""
    images: int = 0
    """How many reference pictures a sample gets; 1 for a first frame."""
    call_images: Callable[[Sequence[Image.Image]], dict[str, Any]] = as_image
    frames: int = 0
    """Video: how many frames are made."""
    texts: tuple[str, str] = TEXTS
    sizes: tuple[int, int] | None = None
    """Height and width in pixels; default: 4 and 3 multiples."""
    numbers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """`size` and `fps` of our rows, where the pipeline's differ from the family's default."""
    load_pipeline: Callable[[Path], Any] | None = None
    load_lora: Callable[[Any, Sequence[Path]], None] = load_plainly
    """(pipeline, one file per denoiser)."""
    full_class: Callable[[Path], Any] | None = None
    """Opens a folder that a full fine-tune wrote; default: `from_pretrained` of the denoiser's class."""
    tolerances: Mapping[str, float] = field(default_factory=dict)
    """check -> a tolerance that replaces the usual one; the case says why."""
    skips: Mapping[str, str] = field(default_factory=dict)
    """check -> why it is impossible here."""


class Subject:
    """A case on disk."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, case.save(folder)
        # parts are freed by collecting garbage, which is quick if it need not look at the imported libraries
        gc.freeze()
        self.context = Context(torch.device("cpu"), torch.float32, seed=42)

    def build(
        self, dtype: torch.dtype = torch.float32, checkpointing: bool = False, bypass: bool = False, **model: Any
    ) -> Family:
        """The family, by the door that a config takes; `model`: more keys of the section."""
        plugin = get_registry().load("models", self.case.arch)
        keys = {"arch": self.case.arch, "name_or_path": str(self.folder), **self.case.model, **model}
        config = plugin.model_validate(keys)
        context = Context(self.context.device, dtype, seed=42)
        return config.build(context, checkpointing=checkpointing, bypass_guidance=bypass)

    def build_beside(self, family: Family, checkpointing: bool = False) -> Family:
        """Another one with denoisers of its own; the other parts are those of `family`, all of which is loaded."""
        built, own = self.build(checkpointing=checkpointing), {trained.part for trained in family.facts.denoisers}
        built.parts._loaded |= {name: part for name, part in family.parts._loaded.items() if name not in own}
        return built

    def load_pipeline(self) -> Any:
        """The diffusers pipeline, quiet."""
        load = self.case.load_pipeline or diffusers.DiffusionPipeline.from_pretrained
        pipeline = load(self.folder)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @cached_property
    def pipeline(self) -> Any:
        """One for all checks that do not change it."""
        return self.load_pipeline()

    @property
    def texts(self) -> list[str]:
        """The prompts that are sampled; pipelines with reference pictures take one."""
        return list(self.case.texts[:1] if self.case.images else self.case.texts)

    def sizes(self, family: Family) -> tuple[int, int]:
        """A small height and width that differ."""
        return self.case.sizes or (4 * family.facts.multiple, 3 * family.facts.multiple)

    def shape(self, family: Family) -> tuple[int, ...]:
        """[C, (f,) h, w] of one sample's latents."""
        facts, (height, width) = family.facts, self.sizes(family)
        cells = height // facts.stride, width // facts.stride
        if not facts.frame_stride:
            return facts.channels, *cells
        return facts.channels, (max(1, self.case.frames) - 1) // facts.frame_stride + 1, *cells

    def pixels(self, family: Family) -> Tensor:
        """[2, 3, (F,) H, W] in -1..1: smooth, as pictures are."""
        frames = (self.case.frames or 1,) if family.facts.frame_stride else ()
        coarse = torch.rand(2, 3, *(1,) * len(frames), 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
        size = (*frames, *self.sizes(family))
        return torch.nn.functional.interpolate(coarse, size, mode="trilinear" if frames else "bilinear")

    def noise(self, family: Family, count: int = len(TEXTS), seed: int = 0) -> Tensor:
        """[count, C, (f,) h, w]."""
        return torch.randn((count, *self.shape(family)), generator=torch.Generator().manual_seed(seed))

    def pictures(self, family: Family, seed: int = 0) -> list[Image.Image]:
        """Reference pictures; those for the channels or the first frame have the size of the target."""
        height, width = self.sizes(family)
        sizes = [(width, height), (height, width), (width, width)]
        found = []
        for number in range(self.case.images):
            size = sizes[0] if family.facts.references in ("channels", "first_frame") else sizes[number + 1]
            colors = torch.randint(0, 255, (4, 4, 3), generator=torch.Generator().manual_seed(9 * seed + number))
            small = Image.fromarray(colors.to(torch.uint8).numpy())
            found.append(small.resize(size, Image.Resampling.BICUBIC))
        return found

    def rows(
        self, family: Family, texts: Sequence[str] | None = None, negative: bool = False, pictures_seed: int = 0
    ) -> list[Row]:
        """Complete rows of `texts`, each with the same pictures and numbers; the parts must be loaded."""
        texts = self.case.texts if texts is None else texts
        pictures = self.pictures(family, pictures_seed)
        images = [pictures] * len(texts) if family.facts.prompt_images and pictures else None
        condition = family.encode_condition(pictures, self.shape(family))
        numbers = {name: torch.tensor(value, dtype=torch.float32) for name, value in self.case.numbers.items()}
        return [
            {**row, **condition, **numbers}
            for row in family.encode_prompt(list(texts), images=images, negative=negative)
        ]

    def run_pipeline(self, pipeline: Any, family: Family, output: str, guidance: float | None = None) -> Tensor:
        """What diffusers makes with seeds 0, 1: our latents, or the picture (video) in 0..1, [B, 3, (F,) H, W]."""
        height, width = self.sizes(family)
        extra: dict[str, Any] = dict(self.case.call)
        if family.facts.guidance == "cfg":
            extra.setdefault("negative_prompt", [NEGATIVE] * len(self.texts))
        if self.case.images:
            extra |= self.case.call_images(self.pictures(family))
        if self.case.frames:
            extra["num_frames"] = self.case.frames
        if family.facts.guidance == "cfg" or self.case.takes_guidance:
            extra.setdefault("guidance_scale", self.case.guidance if guidance is None else guidance)
        made = pipeline(
            prompt=self.texts,
            height=height,
            width=width,
            num_inference_steps=STEPS,
            generator=[torch.Generator().manual_seed(seed) for seed in range(len(self.texts))],
            output_type=output,
            **extra,
        )
        found = made.frames if hasattr(made, "frames") else made.images
        if output == "latent":
            return self.case.latents(pipeline, found, height, width)
        return found.transpose(1, 2) if self.case.frames else found

    def render(self, family: Family, guidance: float | None = None) -> Tensor:
        """What we make of the same; every part must be loaded."""
        scale = self.case.guidance if guidance is None else guidance
        texts = self.texts
        shape = (1, *self.shape(family))
        noise = torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(len(texts))])
        cond, no = collate(self.rows(family, texts)), None
        if family.facts.guidance == "embedded":
            cond = cond.plus(guidance=torch.full((len(texts),), float(scale)))
        elif scale != 1:
            no = collate(self.rows(family, [NEGATIVE] * len(texts), negative=True))
        return sample(family, make_scheduler(family.facts), noise, cond, no, scale, STEPS)


@contextmanager
def loaded(family: Family) -> Iterator[Family]:
    """All parts in memory."""
    with family.parts.using(*(name for names in family.needs.values() for name in names)):
        yield family
