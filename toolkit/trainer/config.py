"""What every trainer's process has in common: the model, what is trained, the steps, and what is written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from toolkit.config import checks, preflight
from toolkit.config.plugins import ModelPlugin, NetworkPlugin, ProcessPlugin, Remarked, chosen
from toolkit.config.section import idle, planned, works
from toolkit.config.sections.logging import LoggingSection
from toolkit.config.sections.sample import SampleSection
from toolkit.config.sections.save import SaveSection
from toolkit.config.sections.train import TrainSection
from toolkit.config.sections.values import Device


class TrainerPlugin(ProcessPlugin):
    """A process that trains a network, or a model itself; `toolkit/trainer/session.py` does what these keys say."""

    jobs = ("extension", "train")

    training_folder: str = works(..., "Results go to `<training_folder>/<name>`.", min_length=1)
    device: Device = works("auto", "auto, cpu, mps, cuda, or one GPU such as `cuda:1`.")
    training_seed: int = works(42, "Seed of everything random in the run.", ge=0)
    trigger_word: str | None = works(None, "Word that stands for the concept; `[trigger]` in captions and prompts.")
    model: Annotated[ModelPlugin, chosen("models", by="arch")] = works(..., "What is trained or adapted.")
    network: Annotated[NetworkPlugin | None, chosen("networks", by="type")] = works(
        None, "What is trained beside the frozen model; without it, the model itself is trained."
    )
    train: TrainSection = works(TrainSection, "The steps, the optimizer, the objective.")
    save: SaveSection = works(SaveSection, "When and how results are written.")
    sample: SampleSection = works(SampleSection, "Pictures that are made while training.")
    first_sample: SampleSection | None = works(None, "Replaces `sample` for the pictures before the first step.")
    logging: LoggingSection = works(LoggingSection, "What is written about the run.")
    log_dir: str | None = works(None, "TensorBoard files go to a folder below this one.")
    performance_log_every: int = works(0, "Steps between two lines on where the time goes; 0: never.", ge=0)
    sqlite_db_path: str | None = idle(None, "there is no database; runs are files", ui="./aitk_db.db")
    torch_profiler: bool = planned(False, "Print a table of torch's profiler every step.")

    def contradictions(self) -> Iterator[Remarked]:
        """Sections that do not fit together."""
        yield from checks.check_model(self.model, self.network)

    def differences(self) -> Iterator[Remarked]:
        """What ai-toolkit would do otherwise."""
        yield from checks.compare_train(self.train, self.model)
        if self.network is not None:
            yield from checks.compare_network(self.network)
        yield from checks.compare_save(self.save, self.train)
        for key, sample in (("sample", self.sample), ("first_sample", self.first_sample)):
            if sample is not None:
                yield from checks.compare_sample(key, sample, self.train, self.model, self.trigger_word)

    def preflight(self) -> Iterator[Remarked]:
        """What on this machine keeps it from running."""
        yield from preflight.check_model_paths(self.model)
        yield from preflight.check_network(self.network)
        yield from preflight.check_validation(self.train)
        yield from preflight.check_results(self.training_folder, self.save, self.network, self.model)

    def plan(self) -> list[str]:
        """What would be done."""
        train = self.train
        network = self.network.title if self.network else "all weights"
        batch = f"batch size {train.batch_size}" + (f" x {train.accumulate}" if train.accumulate > 1 else "")
        return [
            f"model: {self.model.name_or_path} ({self.model.arch})",
            f"trains: {network}{self._where()}",
            *self.plan_of_data(),
            f"steps: {train.steps}, {batch}, {train.optimizer}, lr {train.lr:g} ({train.lr_scheduler})",
            f"results: {self.folder()}",
        ]

    def plan_of_data(self) -> list[str]:
        """The lines of `plan` on what is trained with."""
        return []

    def folder(self, job: str = "") -> Path:
        """Where results go; `job` is the name of the job, which is the default of `name`."""
        return Path(self.training_folder).expanduser() / (self.name or job)

    def resolutions(self) -> list[int]:
        """Sizes that are trained, to advise on a lack of memory."""
        return []

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
