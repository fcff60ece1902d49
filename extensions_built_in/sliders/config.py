"""The keys of the slider processes: of texts, of texts on pictures, of pairs of pictures; and of `concept_replacer`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import Self

from extensions_built_in.sliders.sections import (
    ConceptSliderSection,
    PairFolders,
    PairSliderSection,
    Replacement,
    SlidingTexts,
    TextSliderSection,
    UltimateSliderSection,
)
from toolkit.config.plugins import Remarked
from toolkit.config.section import changes_nothing, works
from toolkit.config.sections.dataset import DatasetSection
from toolkit.config.sections.guidance import GuidanceKeys
from toolkit.config.sections.train import TrainSection
from toolkit.trainer.config import TrainerPlugin
from toolkit.trainer.data_config import DataTrainerPlugin

LAST_STEP = 999
"""`train.max_denoising_steps` where no time is left out."""
OF_THE_TARGET = ("target_noise_multiplier", "do_signal_amplification", "do_prior_divergence")
"""Keys of `train` about the target of pictures, beside those about guidance and preservation."""


def check_slider(config: TrainerPlugin, name: str) -> Iterator[Remarked]:
    """Keys of every trainer that do not fit what only a network beside the model can do."""
    train = config.train
    if config.network is None:
        yield ("network",), f"missing: {name} is trained as a network beside the model; add one of `type: lora`"
    if train.train_text_encoder:
        text = f"{name} compares predictions for texts that are encoded once; set it to false"
        yield ("train", "train_text_encoder"), text
    if train.validation_config is not None:
        yield ("train", "validation_config"), f"{name} does not learn pictures, so there is nothing to hold out"
    for key in (*GuidanceKeys.model_fields, *OF_THE_TARGET):
        if not changes_nothing(TrainSection.model_fields[key], getattr(train, key)):
            yield ("train", key), f"{name} has targets of its own, which this would replace; remove it"
    if train.timestep_type == "next_sample":
        text = f"next_sample follows the network at one strength, and {name} has several; choose another type"
        yield ("train", "timestep_type"), text
    for index, dataset in enumerate(config.datasets if isinstance(config, DataTrainerPlugin) else ()):
        if dataset.prior_reg:
            yield ("datasets", index, "prior_reg"), f"{name} has targets of its own for all pictures; remove it"
    if train.unload_text_encoder:
        yield ("train", "unload_text_encoder"), f"{name} is about texts; they are encoded once in any case, remove it"


def without_last_step(train: TrainSection) -> TrainSection:
    """`train` with all times: sliders of ai-toolkit count sampling steps by `max_denoising_steps`."""
    return train.model_copy(update={"max_denoising_steps": LAST_STEP})


class TextSlider(TrainerPlugin):
    """A slider between two texts; the model makes the pictures itself."""

    slider: TextSliderSection = works(..., "What slides and what stays.")

    def contradictions(self) -> Iterator[Remarked]:
        """Sections that do not fit together."""
        yield from check_slider(self, "a slider")
        yield from super().contradictions()
        if self.train.force_consistent_noise:
            text = "keeps the noise of a picture, but this slider has none; remove it"
            yield ("train", "force_consistent_noise"), text

    def differences(self) -> Iterator[Remarked]:
        """What ai-toolkit would do otherwise."""
        yield from super().differences()
        if self.train.max_denoising_steps != LAST_STEP:
            text = "is the number of sampling steps that latents are made with, as in ai-toolkit; all times are trained"
            yield ("train", "max_denoising_steps"), text

    def preflight(self) -> Iterator[Remarked]:
        """What on this machine keeps it from running."""
        yield from _missing_prompts(self.slider.prompt_file)
        yield from super().preflight()

    def completed(self) -> Self:
        """With the number of sampling steps in its own key."""
        steps = self.train.max_denoising_steps
        if steps >= LAST_STEP:
            return self
        given = self.slider.latent_steps
        slider = self.slider.model_copy(update={"latent_steps": steps if given is None else given})
        return self.model_copy(update={"slider": slider, "train": without_last_step(self.train)})

    def plan_of_data(self) -> list[str]:
        """What slides."""
        sizes = ", ".join(f"{width}x{height}" for width, height in self.slider.resolutions)
        made = f"trained on {self.slider.num_latents} latents that the model makes ({sizes})"
        return [*_plan_of_texts(self.slider), made]

    def resolutions(self) -> list[int]:
        """Sizes that are trained."""
        return [max(size) for size in self.slider.resolutions]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.sliders.text_slider import TextSliderProcess

        return TextSliderProcess(self, job)


class ConceptSlider(DataTrainerPlugin):
    """A slider between two texts, trained on pictures."""

    slider: ConceptSliderSection = works(..., "What slides and what stays.")

    def contradictions(self) -> Iterator[Remarked]:
        """Sections that do not fit together."""
        yield from super().contradictions()
        yield from check_slider(self, "a slider")

    def plan_of_data(self) -> list[str]:
        """What slides, and the data sets."""
        section = self.slider
        kept = [f"keeps: {section.anchor_class!r}"] if section.anchor_class is not None else []
        arrow = _arrow(section.negative_prompt, section.target_class, section.positive_prompt)
        return [arrow, *kept, *super().plan_of_data()]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.sliders.concept_slider import ConceptSliderProcess

        return ConceptSliderProcess(self, job)


class PairTrainer(DataTrainerPlugin):
    """What the sliders of picture pairs have in common: `slider.datasets`."""

    takes_pairs: ClassVar[bool] = True
    handed_down: ClassVar[Mapping[str, str]] = {}

    datasets: list[DatasetSection] = works([], "aitk only. Made of `slider.datasets`, which is what to set.")

    slider: PairSliderSection | UltimateSliderSection = works(..., "The pairs of pictures, and what else slides.")

    @property
    def pairs(self) -> list[PairFolders]:
        """`slider.datasets`."""
        return self.slider.datasets

    def contradictions(self) -> Iterator[Remarked]:
        """Sections that do not fit together."""
        yield from super().contradictions()
        yield from check_slider(self, "a slider")
        if self.datasets and [each.model_dump() for each in self.datasets] != [
            each.model_dump() for each in self._as_datasets()
        ]:
            yield ("datasets",), "name the folders of pairs in slider.datasets, and remove this"
        negatives: dict[float, float] = {}
        for index, pair in enumerate(self.pairs):
            positive, negative = pair.strengths
            if negatives.setdefault(positive, negative) != negative:
                text = f"data sets with the same pos_weight, {positive:g}, must have the same neg_weight"
                yield ("slider", "datasets", index, "neg_weight"), text

    def differences(self) -> Iterator[Remarked]:
        """What ai-toolkit would do otherwise."""
        yield from super().differences()
        if self.train.max_denoising_steps != LAST_STEP:
            text = "has no effect: all times are trained (ai-toolkit: only the cleanest so many of 1000)"
            yield ("train", "max_denoising_steps"), text

    def preflight(self) -> Iterator[Remarked]:
        """What on this machine keeps it from running."""
        from extensions_built_in.sliders.pairs import missing_folders

        yield from missing_folders(self.pairs)
        yield from TrainerPlugin.preflight(self)

    def completed(self) -> Self:
        """With the folders of pairs as data sets."""
        changes = {"datasets": self._as_datasets(), "train": without_last_step(self.train)}
        return self.model_copy(update=changes)

    def plan_of_data(self) -> list[str]:
        """The pairs."""
        return [
            f"pairs: {pair.pair_folder or f'{pair.neg_folder} -> {pair.pos_folder}'} (at {pair.size})"
            for pair in self.pairs
        ]

    def resolutions(self) -> list[int]:
        """Sizes that are trained."""
        return [pair.size for pair in self.pairs]

    def _as_datasets(self) -> list[DatasetSection]:
        from extensions_built_in.sliders.pairs import as_dataset

        return [as_dataset(pair, self.training_folder, self.trigger_word) for pair in self.pairs]


class ReferenceSlider(PairTrainer):
    """A slider between pairs of pictures."""

    slider: PairSliderSection = works(..., "The pairs of pictures.")

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.sliders.pair_slider import ReferenceSliderProcess

        return ReferenceSliderProcess(self, job)


class UltimateSlider(PairTrainer):
    """A slider between texts and pairs of pictures at once."""

    slider: UltimateSliderSection = works(..., "What slides, in texts and in pairs of pictures.")

    def preflight(self) -> Iterator[Remarked]:
        """What on this machine keeps it from running."""
        yield from _missing_prompts(self.slider.prompt_file)
        yield from super().preflight()

    def plan_of_data(self) -> list[str]:
        """What slides."""
        return [*_plan_of_texts(self.slider), *super().plan_of_data()]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.sliders.pair_slider import UltimateSliderProcess

        return UltimateSliderProcess(self, job)


class ConceptReplacer(DataTrainerPlugin):
    """A network that gives the pictures of other words for the words of a concept."""

    replacements: list[Replacement] = works(..., "What is replaced by what; drawn anew per sample.", min_length=1)

    def contradictions(self) -> Iterator[Remarked]:
        """Sections that do not fit together."""
        yield from super().contradictions()
        yield from check_slider(self, "a concept replacer")

    def plan_of_data(self) -> list[str]:
        """What is replaced, and the data sets."""
        arrows = [f"replaces: {each.concept!r} by {each.replacement!r}" for each in self.replacements]
        return [*arrows, *super().plan_of_data()]

    def completed(self) -> Self:
        """With all captions encoded ahead, so that those with the concepts can be too."""
        train = self.train.model_copy(update={"cache_text_embeddings": True})
        datasets = [section.model_copy(update={"cache_text_embeddings": True}) for section in self.datasets]
        return self.model_copy(update={"train": train, "datasets": datasets})

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.sliders.replacer import ConceptReplacerProcess

        return ConceptReplacerProcess(self, job)


def _arrow(negative: str, neutral: str, positive: str) -> str:
    """A direction in words."""
    return f"slides: {negative or neutral!r} <- {neutral!r} -> {positive or neutral!r}"


def _plan_of_texts(section: SlidingTexts) -> list[str]:
    """What slides and what stays."""
    arrows = [_arrow(each.negative, each.target_class, each.positive) for each in section.targets]
    return [*arrows, *(f"keeps: {anchor.prompt!r}" for anchor in section.anchors)]


def _missing_prompts(given: str | list[str] | None) -> Iterator[Remarked]:
    """A file of prompts that is not there, or holds none."""
    if isinstance(given, str):
        path = Path(given).expanduser()
        if not path.is_file():
            yield ("slider", "prompt_file"), f"there is no file {given}"
        elif not path.read_text(encoding="utf-8-sig", errors="replace").strip():
            yield ("slider", "prompt_file"), f"{given} holds no prompt"
