"""The keys of the trainer: `type: sd_trainer`, also known as diffusion_trainer and ui_trainer."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from typing_extensions import Self

from extensions_built_in.sd_trainer.dreambooth import ClassImages, class_images, is_within
from toolkit.config.checks import check_words
from toolkit.config.plugins import ProcessPlugin, Remarked
from toolkit.config.section import idle, planned, works
from toolkit.config.sections.adapter import AdapterSection
from toolkit.config.sections.dreambooth import DreamBoothSection
from toolkit.config.sections.embedding import EmbeddingSection
from toolkit.config.sections.extras import DecoratorSection, GuidanceSection
from toolkit.trainer.data_config import DataTrainerPlugin


class SdTrainer(DataTrainerPlugin):
    """Train a network, or a model itself, on pictures and captions."""

    dreambooth: DreamBoothSection | None = works(
        None, "aitk only. A prompt for the pictures, and pictures of the class that keep its meaning."
    )
    adapter: AdapterSection | None = planned(None, "An adapter that is trained or helps.")
    embedding: EmbeddingSection | None = works(
        None, "Teach the text encoders a new word (textual inversion); without a `network`, nothing else is trained."
    )
    decorator: DecoratorSection | None = planned(
        None,
        "Train decorator tokens (FLUX).",
        why="no other program reads such files; an `embedding` teaches a word, and a network all else",
    )
    guidance: GuidanceSection | None = idle(None, "ai-toolkit does not read it either")
    slider: dict[str, Any] | None = planned(
        None,
        "What slides.",
        why="sliders are process types of their own; set `type: concept_slider`, or another one of docs/sliders.md",
    )
    replacements: list[dict[str, str]] | None = planned(
        None, "Concepts that are replaced.", why="that is `type: concept_replacer`"
    )
    rescale: dict[str, Any] | None = planned(None, "Train for another size of latents.")
    do_lorm: bool = planned(False, "Replace the model by low-rank layers.")
    lorm_extract_mode: str = planned("ratio", "How the rank of those is found.")
    lorm_extract_mode_param: float = planned(0.25, "Parameter of that.")

    def contradictions(self) -> Iterator[Remarked]:
        """Sections that do not fit together."""
        yield from super().contradictions()
        if self.embedding is not None:
            yield from check_words(self.embedding, self.trigger_word, self.datasets, self.train)
        elif self.type == "textual_inversion_trainer":
            yield ("type",), "has no embedding section; add one, or use sd_trainer"
        if self.dreambooth is not None and self.train.unload_text_encoder:
            text = "trains without captions, but dreambooth is about captions; set cache_text_embeddings instead"
            yield ("train", "unload_text_encoder"), text

    @property
    def words(self) -> EmbeddingSection | None:
        """The word of `embedding`."""
        return self.embedding

    def differences(self) -> Iterator[Remarked]:
        """What ai-toolkit would do otherwise."""
        yield from super().differences()
        if self.dreambooth is not None:
            yield from ((("dreambooth", *path), text) for path, text in self.dreambooth.remarks(self.trigger))

    def preflight(self) -> Iterator[Remarked]:
        """What on this machine keeps it from running."""
        made = self._class_images()
        for path, text in super().preflight():
            # what is made before training need not be there
            if made is None or not is_within(made, self.datasets, path):
                yield path, text
        if made is not None:
            yield from ((("dreambooth", "class_folder"), text) for _, text in made.preflight())

    def plan_of_data(self) -> list[str]:
        """The data sets, and what DreamBooth does with them."""
        return [*super().plan_of_data(), *self._prompts()]

    def completed(self) -> Self:
        """With the prompts and class pictures of `dreambooth` in the data sets; a new word is the trigger word."""
        changes: dict[str, Any] = {} if self.embedding is None else {"trigger_word": self.embedding.trigger}
        if self.dreambooth is not None:
            made = self._class_images()
            folder = made.destination if made is not None else Path()
            changes["datasets"] = self.dreambooth.data_sets(self.datasets, folder)
        return self.model_copy(update=changes) if changes else self

    def preparations(self) -> Iterable[ProcessPlugin]:
        """The class pictures, where some are wanted."""
        made = self._class_images()
        return () if made is None else (made,)

    def _class_images(self) -> ClassImages | None:
        """The process that makes class pictures, where some are wanted."""
        if self.dreambooth is None or not self.dreambooth.keeps_class:
            return None
        return class_images(self)

    def _prompts(self) -> list[str]:
        """What DreamBooth does, in words."""
        section = self.dreambooth
        if section is None:
            return []
        use = {"use": "for pictures without a caption", "prepend": "before every caption", "ignore": "for all pictures"}
        lines = [f"instance prompt: {section.instance_prompt!r} {use[section.captions]}"]
        if section.keeps_class:
            weight = f"weight {section.prior_weight:g}, a batch of them after every other batch"
            lines.append(f"class prompt: {section.class_prompt!r}, {weight}")
        return lines if section.instance_prompt else lines[1:]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.sd_trainer.process import SdTrainerProcess

        return SdTrainerProcess(self, job)
