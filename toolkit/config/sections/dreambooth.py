"""`dreambooth`: one prompt for a concept, one for its class, and pictures of the class that keep what it means."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from toolkit.config import rare_words
from toolkit.config.section import Remarked, Section, works
from toolkit.config.sections.dataset import DatasetSection
from toolkit.config.sections.sample import Sampler

INHERITED = (
    "resolution",
    "batch_size",
    "cache_latents",
    "cache_latents_to_disk",
    "cache_text_embeddings",
    "background",
    "num_workers",
    "prefetch_factor",
)
"""Keys of the first data set that the class pictures have too."""


class DreamBoothSection(Section):
    """`dreambooth`. aitk only; ai-toolkit has no such section."""

    instance_prompt: str | None = works(
        None, "Caption of the concept's pictures, with a rare word in it: `a photo of ohwx dog`.", min_length=1
    )
    captions: Literal["use", "prepend", "ignore"] = works(
        "use",
        "Captions beside the pictures: `use` them, and the prompt where there is none; `prepend` the prompt to them; "
        "`ignore` them, as the DreamBooth scripts do. Holds for the class pictures and their prompt too.",
    )
    class_prompt: str | None = works(
        None, "What the concept is one of: `a photo of a dog`. Without it there are no class pictures.", min_length=1
    )
    class_folder: str | None = works(
        None, "Folder of class pictures; those that it lacks are put there. Default: a folder in the cache."
    )
    num_class_images: int = works(100, "So many class pictures are wanted; the model makes what is missing.", ge=1)
    prior_weight: float = works(1.0, "Weight of the class pictures in the loss; 0: none are made or used.", ge=0)
    sample_batch_size: int = works(4, "Class pictures that are made at once.", ge=1)
    sample_steps: int | None = works(None, "Denoising steps of class pictures; default: those of `sample`.", ge=1)
    guidance_scale: float | None = works(None, "Guidance scale of class pictures; default: that of `sample`.", ge=0)
    sampler: Sampler | None = works(None, "Sampler of class pictures; default: that of `sample`.")
    neg: str | None = works(None, "Negative prompt of class pictures; default: that of `sample`.")
    class_resolution: int | None = works(
        None, "Width and height of class pictures; default: the largest `resolution` of `datasets`.", ge=64
    )

    @property
    def keeps_class(self) -> bool:
        """Whether class pictures take part."""
        return bool(self.class_prompt) and self.prior_weight > 0

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        if self.class_prompt is None and self.class_folder is not None:
            yield ("class_prompt",), "missing; the pictures of class_folder need a caption"
        if self.instance_prompt is None and self.captions != "use":
            yield ("instance_prompt",), f"missing; `captions: {self.captions}` needs it"

    def remarks(self, trigger: str | None) -> Iterator[Remarked]:
        """What is unfortunate about the two prompts."""
        if self.keeps_class and self.instance_prompt:
            found = rare_words.remarks(self.instance_prompt, self.class_prompt or "", trigger)
            yield from (((key,), text) for key, text in found)
        if self.instance_prompt and "[trigger]" in self.instance_prompt and not trigger:
            yield ("instance_prompt",), "[trigger] stands for nothing: no trigger_word"

    def data_sets(self, datasets: Sequence[DatasetSection], class_folder: Path) -> list[DatasetSection]:
        """The data sets with what this section says, the class pictures among them; given these, the same again."""
        is_class = [self.keeps_class and _same(dataset.folder, class_folder) for dataset in datasets]
        kept = [
            dataset if dataset.is_reg or is_one else _captioned(dataset, self.instance_prompt, self.captions)
            for dataset, is_one in zip(datasets, is_class, strict=True)
        ]
        if self.keeps_class and not any(is_class):
            first = datasets[0]
            keys: dict[str, Any] = {key: getattr(first, key) for key in INHERITED if key in first.model_fields_set}
            keys |= {"folder_path": str(class_folder), "is_reg": True, "loss_multiplier": self.prior_weight}
            kept.append(_captioned(DatasetSection.model_validate(keys), self.class_prompt, self.captions))
        return kept


def _captioned(dataset: DatasetSection, prompt: str | None, captions: str) -> DatasetSection:
    """A data set with a prompt and what is to become of its captions, unless it says so itself."""
    new: dict[str, Any] = {}
    if prompt and dataset.default_caption is None:
        new["default_caption"] = prompt
    if captions != "use" and "captions" not in dataset.model_fields_set:
        new["captions"] = captions
    return dataset.model_copy(update=new)


def _same(one: Path, other: Path) -> bool:
    return one.expanduser().absolute() == other.expanduser().absolute()
