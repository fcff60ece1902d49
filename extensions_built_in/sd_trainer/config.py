"""The keys of the trainer: `type: sd_trainer`, also known as diffusion_trainer and ui_trainer."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import field_validator

from toolkit.config import checks, preflight
from toolkit.config.plugins import ModelPlugin, NetworkPlugin, ProcessPlugin, Remarked, chosen
from toolkit.config.section import idle, planned, works
from toolkit.config.sections.adapter import AdapterSection
from toolkit.config.sections.dataset import DatasetSection
from toolkit.config.sections.extras import DecoratorSection, EmbeddingSection, GuidanceSection, SliderSection
from toolkit.config.sections.logging import LoggingSection
from toolkit.config.sections.sample import SampleSection
from toolkit.config.sections.save import SaveSection
from toolkit.config.sections.train import TrainSection


class SdTrainer(ProcessPlugin):
    """Train a network, or a model itself, on pictures and captions."""

    jobs: ClassVar[tuple[str, ...]] = ("extension", "train")

    handed_down: ClassVar[Mapping[str, str]] = {
        "trigger_word": "datasets.*.trigger_word",
        "train.cache_text_embeddings": "datasets.*.cache_text_embeddings",
    }

    training_folder: str = works(..., "Results go to `<training_folder>/<name>`.", min_length=1)
    device: str = works("auto", "auto, cpu, mps, cuda, or one GPU such as `cuda:1`.")
    training_seed: int = works(42, "Seed of everything random in the run.", ge=0)
    trigger_word: str | None = works(None, "Word that stands for the concept; `[trigger]` in captions and prompts.")
    model: Annotated[ModelPlugin, chosen("models", by="arch")] = works(..., "What is trained or adapted.")
    network: Annotated[NetworkPlugin | None, chosen("networks", by="type")] = works(
        None, "What is trained beside the frozen model; without it, the model itself is trained."
    )
    train: TrainSection = works(TrainSection, "The steps, the optimizer, the objective.")
    datasets: list[DatasetSection] = works(..., "Folders of pictures and captions.", min_length=1)
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

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            raise ValueError(f"must be auto, cpu, mps, cuda or cuda:N, not '{value}'")
        return value

    def contradictions(self) -> Iterator[Remarked]:
        """Sections that do not fit together."""
        yield from checks.check_datasets(self.datasets)
        yield from checks.check_texts(self.datasets, self.train)
        yield from checks.check_model(self.model, self.network)

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

    def preflight(self) -> Iterator[Remarked]:
        """What on this machine keeps it from running."""
        yield from preflight.check_folders(self.datasets)
        yield from preflight.check_model_paths(self.model)
        yield from preflight.check_validation(self.train)
        yield from preflight.check_results(self.training_folder, self.save, self.network, self.model)

    def plan(self) -> list[str]:
        """What would be done."""
        train = self.train
        network = self.network.title if self.network else "all weights"
        batch = f"batch size {train.batch_size}" + (f" x {train.accumulate}" if train.accumulate > 1 else "")
        datasets = [
            f"data set: {dataset.folder} ({_count(dataset)} pictures at {', '.join(map(str, dataset.resolutions))})"
            for dataset in self.datasets
        ]
        return [
            f"model: {self.model.name_or_path} ({self.model.arch})",
            f"trains: {network}{self._where()}",
            *datasets,
            f"steps: {train.steps}, {batch}, {train.optimizer}, lr {train.lr:g} ({train.lr_scheduler})",
            f"results: {Path(self.training_folder) / (self.name or '')}",
        ]

    def _where(self) -> str:
        """Which parts of the model are trained, if it is not the denoiser alone."""
        if not self.train.train_text_encoder:
            return ""
        return ", in the text encoders too" if self.train.train_unet else ", in the text encoders only"

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.sd_trainer.process import SdTrainerProcess

        return SdTrainerProcess(self, job)


def _count(dataset: DatasetSection) -> int:
    return sum(1 for _ in preflight.pictures(dataset.folder, dataset.endings))
