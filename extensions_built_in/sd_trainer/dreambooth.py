"""`type: class_images`: pictures of a class, made by the base model; the trainer has it run first for `dreambooth`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from toolkit.config import preflight
from toolkit.config.errors import KeyPath
from toolkit.config.plugins import ModelPlugin, ProcessPlugin, Remarked, chosen
from toolkit.config.section import works
from toolkit.config.sections.dataset import DatasetSection
from toolkit.config.sections.sample import Sampler
from toolkit.config.sections.values import Device, Dtype

if TYPE_CHECKING:
    from extensions_built_in.sd_trainer.config import SdTrainer

DECIDING = (
    "arch",
    "name_or_path",
    "revision",
    "extras_name_or_path",
    "te_name_or_path",
    "vae_path",
    "unet_path",
    "lora_path",
    "inference_lora_path",
    "accuracy_recovery_adapter",
    "quantize",
    "qtype",
    "quantize_te",
    "qtype_te",
    "model_kwargs",
)
"""Keys of the model that decide what its pictures look like; the others are about memory and speed."""


class ClassImages(ProcessPlugin):
    """Make pictures of one prompt with a model, as many as a folder lacks."""

    jobs: ClassVar[tuple[str, ...]] = ("extension", "train")
    shares_out: ClassVar[bool] = True

    training_folder: str = works("output", "The default `folder` is in the cache beside this one.", min_length=1)
    device: Device = works("auto", "auto, cpu, mps, cuda, or one GPU such as `cuda:1`.")
    model: Annotated[ModelPlugin, chosen("models", by="arch")] = works(..., "What makes the pictures.")
    dtype: Dtype = works("bf16", "Precision of the computation.")
    prompt: str = works(..., "What the pictures show.", min_length=1)
    neg: str = works("", "Negative prompt.")
    folder: str | None = works(None, "Where they go; default: a folder in the cache, named by what decides them.")
    num_images: int = works(100, "Pictures that are wanted; those in the folder count.", ge=1)
    resolution: int = works(512, "Width and height.", ge=64)
    batch_size: int = works(4, "Pictures that are made at once.", ge=1)
    seed: int = works(42, "The seed of each picture follows from it and from the picture's number.", ge=0)
    sampler: Sampler | None = works(None, "Sampler; default: the one of the checkpoint.")
    sample_steps: int = works(20, "Denoising steps.", ge=1)
    guidance_scale: float = works(7.0, "Guidance scale, in the unit of the family.", ge=0)
    guidance_rescale: float = works(0.0, "How far the guided prediction gets its deviation back.", ge=0, le=1)

    @property
    def digest(self) -> str:
        """Names what the pictures look like: other settings, another name."""
        own = {"prompt", "neg", "resolution", "seed", "sampler", "sample_steps", "guidance_scale", "guidance_rescale"}
        text = self.model_dump_json(include=own | {"dtype"}) + self.model.model_dump_json(include=set(DECIDING))
        return blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def destination(self) -> Path:
        """The folder of the pictures."""
        from toolkit.data.cache.folder import cache_root

        if self.folder:
            return Path(self.folder).expanduser()
        return cache_root(Path(self.training_folder).expanduser() / "run", os.environ) / "class_images" / self.digest

    def preflight(self) -> Iterator[Remarked]:
        """A folder that cannot be written to."""
        if self._count() < self.num_images and (text := preflight.why_not_written(self.destination)):
            yield ("folder",), f"{text}, and it lacks class pictures"

    def plan(self) -> list[str]:
        """What would be done."""
        missing = max(0, self.num_images - self._count())
        size = f"{self.resolution}x{self.resolution}, {self.sample_steps} steps, guidance {self.guidance_scale:g}"
        return [
            f"pictures of {self.prompt!r}: {self.num_images} wanted, {missing} to be made ({size})",
            f"folder: {self.destination}",
        ]

    def _count(self) -> int:
        return sum(1 for _ in preflight.pictures(self.destination))

    def filled(self) -> list[Path]:
        """The folder of the pictures."""
        return [self.destination]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.sd_trainer.class_images import ClassImagesProcess

        return ClassImagesProcess(self)


def class_images(trainer: SdTrainer) -> ClassImages:
    """The process that makes the class pictures of a training."""
    section, sample = trainer.dreambooth, trainer.sample
    assert section is not None and section.class_prompt

    def given(value: Any, default: Any) -> Any:
        return default if value is None else value

    return ClassImages(
        type="class_images",
        training_folder=trainer.training_folder,
        device=trainer.device,
        model=trainer.model,
        dtype=trainer.train.dtype,
        prompt=section.class_prompt,
        neg=given(section.neg, sample.neg or ""),
        folder=section.class_folder,
        num_images=section.num_class_images,
        resolution=section.class_resolution or max(size for each in trainer.datasets for size in each.resolutions),
        batch_size=section.sample_batch_size,
        seed=trainer.training_seed,
        sampler=given(section.sampler, sample.sampler),
        sample_steps=given(section.sample_steps, sample.sample_steps),
        guidance_scale=given(section.guidance_scale, sample.guidance_scale),
        guidance_rescale=sample.guidance_rescale,
    )


def is_within(made: ClassImages, datasets: Sequence[DatasetSection], path: KeyPath) -> bool:
    """Whether a remark about data sets is about the folder that the pictures are made in."""
    number = path[1] if len(path) > 1 else None
    return isinstance(number, int) and datasets[number].folder.absolute() == made.destination.absolute()
