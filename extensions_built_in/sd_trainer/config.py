"""The keys of the trainer: `type: sd_trainer`, also known as diffusion_trainer and ui_trainer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from typing_extensions import Self

from extensions_built_in.sd_trainer.dreambooth import ClassImages, class_images, is_within
from toolkit.config import checks, preflight
from toolkit.config.plugins import ModelPlugin, NetworkPlugin, ProcessPlugin, Remarked, chosen
from toolkit.config.section import idle, planned, works
from toolkit.config.sections.adapter import AdapterSection
from toolkit.config.sections.dataset import DatasetSection
from toolkit.config.sections.dreambooth import DreamBoothSection
from toolkit.config.sections.extras import DecoratorSection, EmbeddingSection, GuidanceSection, SliderSection
from toolkit.config.sections.logging import LoggingSection
from toolkit.config.sections.sample import SampleSection
from toolkit.config.sections.save import SaveSection
from toolkit.config.sections.train import TrainSection
from toolkit.config.sections.values import Device


class SdTrainer(ProcessPlugin):
    """Train a network, or a model itself, on pictures and captions."""

    jobs: ClassVar[tuple[str, ...]] = ("extension", "train")

    handed_down: ClassVar[Mapping[str, str]] = {
        "trigger_word": "datasets.*.trigger_word",
        "train.cache_text_embeddings": "datasets.*.cache_text_embeddings",
    }

    training_folder: str = works(..., "Results go to `<training_folder>/<name>`.", min_length=1)
    device: Device = works("auto", "auto, cpu, mps, cuda, or one GPU such as `cuda:1`.")
    training_seed: int = works(42, "Seed of everything random in the run.", ge=0)
    trigger_word: str | None = works(None, "Word that stands for the concept; `[trigger]` in captions and prompts.")
    model: Annotated[ModelPlugin, chosen("models", by="arch")] = works(..., "What is trained or adapted.")
    network: Annotated[NetworkPlugin | None, chosen("networks", by="type")] = works(
        None, "What is trained beside the frozen model; without it, the model itself is trained."
    )
    train: TrainSection = works(TrainSection, "The steps, the optimizer, the objective.")
    datasets: list[DatasetSection] = works(..., "Folders of pictures and captions.", min_length=1)
    dreambooth: DreamBoothSection | None = works(
        None, "aitk only. A prompt for the pictures, and pictures of the class that keep its meaning."
    )
    save: SaveSection = works(SaveSection, "When and how results are written.")
    sample: SampleSection = works(SampleSection, "Pictures that are made while training.")
    first_sample: SampleSection | None = works(None, "Replaces `sample` for the pictures before the first step.")
    logging: LoggingSection = works(LoggingSection, "What is written about the run.")
    log_dir: str | None = works(None, "TensorBoard files go to a folder below this one.")
    performance_log_every: int = works(0, "Steps between two lines on where the time goes; 0: never.", ge=0)
    sqlite_db_path: str | None = idle(None, "there is no database; runs are files", ui="./aitk_db.db")
    torch_profiler: bool = planned(False, "Print a table of torch's profiler every step.")
    adapter: AdapterSection | None = planned(None, "An adapter that is trained or helps.")
    embedding: EmbeddingSection | None = planned(None, "Train an embedding (textual inversion).")
    decorator: DecoratorSection | None = planned(None, "Train decorator tokens (FLUX).")
    guidance: GuidanceSection | None = idle(None, "ai-toolkit does not read it either")
    slider: SliderSection | None = planned(None, "Pairs of prompts of a slider.")
    replacements: list[dict[str, str]] | None = planned(None, "Concepts that are replaced.")
    rescale: dict[str, Any] | None = planned(None, "Train for another size of latents.")
    do_lorm: bool = planned(False, "Replace the model by low-rank layers.")
    lorm_extract_mode: str = planned("ratio", "How the rank of those is found.")
    lorm_extract_mode_param: float = planned(0.25, "Parameter of that.")

    def contradictions(self) -> Iterator[Remarked]:
        """Sections that do not fit together."""
        yield from checks.check_datasets(self.datasets)
        yield from checks.check_consumers(self.datasets, "this trainer")
        yield from checks.check_texts(self.datasets, self.train)
        yield from checks.check_model(self.model, self.network)
        if self.dreambooth is not None and self.train.unload_text_encoder:
            text = "trains without captions, but dreambooth is about captions; set cache_text_embeddings instead"
            yield ("train", "unload_text_encoder"), text

    def differences(self) -> Iterator[Remarked]:
        """What ai-toolkit would do otherwise."""
        yield from checks.compare_train(self.train, self.model)
        if self.network is not None:
            yield from checks.compare_network(self.network)
        yield from checks.compare_datasets(self.datasets)
        yield from checks.compare_save(self.save, self.train)
        yield from checks.compare_sample("sample", self.sample, self.train, self.model, self.trigger_word)
        if self.first_sample is not None:
            yield from checks.compare_sample(
                "first_sample", self.first_sample, self.train, self.model, self.trigger_word
            )
        if self.dreambooth is not None:
            yield from ((("dreambooth", *path), text) for path, text in self.dreambooth.remarks(self.trigger_word))

    def preflight(self) -> Iterator[Remarked]:
        """What on this machine keeps it from running."""
        made = self._class_images()
        for path, text in preflight.check_folders(self.datasets):
            # what is made before training need not be there
            if made is None or not is_within(made, self.datasets, path):
                yield path, text
        if made is not None:
            yield from ((("dreambooth", "class_folder"), text) for _, text in made.preflight())
        yield from _wrong_augmentations(self.datasets)
        yield from preflight.check_model_paths(self.model)
        yield from preflight.check_network(self.network)
        yield from preflight.check_validation(self.train)
        yield from preflight.check_results(self.training_folder, self.save, self.network, self.model)

    def plan(self) -> list[str]:
        """What would be done."""
        train = self.train
        network = self.network.title if self.network else "all weights"
        batch = f"batch size {train.batch_size}" + (f" x {train.accumulate}" if train.accumulate > 1 else "")
        datasets = [
            f"data set: {dataset.folder} ({_count(dataset)}at {', '.join(map(str, dataset.resolutions))})"
            for dataset in self.datasets
        ]
        return [
            f"model: {self.model.name_or_path} ({self.model.arch})",
            f"trains: {network}{self._where()}",
            *datasets,
            *self._prompts(),
            f"steps: {train.steps}, {batch}, {train.optimizer}, lr {train.lr:g} ({train.lr_scheduler})",
            f"results: {Path(self.training_folder) / (self.name or '')}",
        ]

    def completed(self) -> Self:
        """With the prompts of `dreambooth` in the data sets, and the class pictures as one of them."""
        if self.dreambooth is None:
            return self
        made = self._class_images()
        folder = made.destination if made is not None else Path()
        return self.model_copy(update={"datasets": self.dreambooth.data_sets(self.datasets, folder)})

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

    def _where(self) -> str:
        """Which parts of the model are trained, if it is not the denoiser alone."""
        if not self.train.train_text_encoder:
            return ""
        return ", in the text encoders too" if self.train.train_unet else ", in the text encoders only"

    def facts(self) -> Any:
        """What is true of the model, from its configuration files: loads torch, but no weight."""
        from toolkit.context import make_context

        context = make_context("cpu", self.train.dtype, self.training_seed)
        return self.model.build(context, checkpointing=False, bypass_guidance=False).facts

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.sd_trainer.process import SdTrainerProcess

        return SdTrainerProcess(self, job)


def _count(dataset: DatasetSection) -> str:
    """How many pictures a folder has; lists and archives are counted when they are read."""
    if not dataset.folder.is_dir():
        return ""
    return f"{sum(1 for _ in preflight.pictures(dataset.folder, dataset.endings))} pictures "


def _wrong_augmentations(datasets: Sequence[DatasetSection]) -> Iterator[Remarked]:
    """Transforms that albumentations does not know, or not with these arguments."""
    if not any(dataset.augments or dataset.augmentations for dataset in datasets):
        return
    from toolkit.data.pictures.augment import wrong_steps

    for index, dataset in enumerate(datasets):
        yield from ((("datasets", index, *path), text) for path, text in wrong_steps(dataset))
