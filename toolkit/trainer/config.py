"""What every trainer's process has in common: the model, what is trained, the steps, and what is written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

from toolkit.config import checks, preflight
from toolkit.config.plugins import ModelPlugin, NetworkPlugin, ProcessPlugin, Remarked, chosen
from toolkit.config.section import idle, planned, works
from toolkit.config.sections.embedding import EmbeddingSection
from toolkit.config.sections.logging import LoggingSection
from toolkit.config.sections.sample import SampleSection
from toolkit.config.sections.save import SaveSection
from toolkit.config.sections.train import TrainSection
from toolkit.config.sections.values import Device
from toolkit.config.sharing import why_not_shared

ASKING = ("diff_output_preservation", "blank_prompt_preservation", "do_guidance_loss", "do_cfg", "do_random_cfg")
"""Keys of `train` that ask the network about texts beside the captions, its companions."""


class TrainerPlugin(ProcessPlugin):
    """A process that trains a network, or a model itself; `toolkit/trainer/session.py` does what these keys say."""

    jobs = ("extension", "train")
    shares_out = True
    trains = True
    has_companions: ClassVar[bool] = False
    """Whether its batches hold the texts of `Aims.companions`, as those of `toolkit/trainer/data.py` do."""

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
        if self.trains_model:
            yield from checks.check_model(self.model, self.network)
            yield from checks.check_trained(self.train)
        for key in ASKING if not self.has_companions else ():
            if getattr(self.train, key):
                text = f"needs other texts beside the captions, which {self.type} does not have; remove it"
                yield ("train", key), text
        yield from checks.check_merging(self.train, self.model, self.network)
        if self.train.fsdp is True and (remark := why_not_shared(self.train, self.network, self.words)):
            yield remark

    def differences(self) -> Iterator[Remarked]:
        """What ai-toolkit would do otherwise."""
        yield from checks.compare_model(self.model)
        yield from checks.compare_train(self.train, self.model)
        if self.train.embedding_lr is not None and self.words is None:
            yield ("train", "embedding_lr"), "has no effect: there is no embedding"
        if self.train.train_text_encoder and not self.trains_model:
            yield ("train", "train_text_encoder"), "has no effect: without a `network`, the new word alone is trained"
        if self.network is not None:
            yield from checks.compare_network(self.network, self.model)
        yield from checks.compare_save(self.save, self.train)
        for key, sample in (("sample", self.sample), ("first_sample", self.first_sample)):
            if sample is not None:
                yield from checks.compare_sample(key, sample, self.train, self.model, self.trigger)

    def preflight(self) -> Iterator[Remarked]:
        """What on this machine keeps it from running."""
        yield from preflight.check_model_paths(self.model)
        yield from preflight.check_network(self.network)
        yield from preflight.check_validation(self.train)
        yield from preflight.check_results(self.training_folder, self.save, self.network, self.model)

    def preflight_online(self) -> Iterator[Remarked]:
        """Whether the result could be uploaded."""
        save = self.save
        if save.push_to_hub and save.hf_repo_id is not None:
            from toolkit.reporting.hub_check import why_no_upload

            if text := why_no_upload(save.hf_repo_id, save.hf_private):
                yield ("save", "hf_repo_id"), text

    def plan(self) -> list[str]:
        """What would be done."""
        train = self.train
        batch = f"batch size {train.batch_size}" + (f" x {train.accumulate}" if train.accumulate > 1 else "")
        return [
            f"model: {self.model.name_or_path} ({self.model.arch})",
            f"trains: {self._what()}",
            *self.plan_of_data(),
            f"steps: {train.steps}, {batch}, {train.optimizer}, lr {train.lr:g} ({train.lr_scheduler})",
            f"results: {self.folder()}",
            *self._plan_of_upload(),
        ]

    def _plan_of_upload(self) -> list[str]:
        """The line of `plan` on what goes to the Hub."""
        save = self.save
        if not save.push_to_hub:
            return []
        made = f"made {'private' if save.hf_private else 'public'} if it is not there"
        return [f"upload: {', '.join(save.uploaded)} to {save.hf_repo_id} on the Hugging Face Hub, {made}"]

    @property
    def samples_per_step(self) -> int:
        """How many samples one process trains on in a step."""
        return self.train.batch_size * self.train.accumulate

    def card(self, job: Any) -> str:
        """The model card that would be uploaded, as far as it is known before."""
        from toolkit.trainer.card import make_card

        return make_card(self, job) if self.save.push_to_hub else ""

    def plan_of_data(self) -> list[str]:
        """The lines of `plan` on what is trained with."""
        return []

    def folder(self, job: str = "") -> Path:
        """Where results go; `job` is the name of the job, which is the default of `name`."""
        return Path(self.training_folder).expanduser() / (self.name or job)

    def resolutions(self) -> list[int]:
        """Sizes that are trained, to advise on a lack of memory."""
        return []

    def num_pictures(self) -> int:
        """How many pictures or videos are trained on; 0: not known without reading them."""
        return 0

    @property
    def words(self) -> EmbeddingSection | None:
        """The new words that the text encoders are taught; a trainer that has no such key teaches none."""
        return None

    @property
    def trigger(self) -> str | None:
        """The word that stands for the concept: `trigger_word`, or that of `words`."""
        return self.trigger_word or (self.words.trigger if self.words else None)

    @property
    def trains_model(self) -> bool:
        """Whether the model or a network of it is trained, not new words alone."""
        return self.network is not None or self.words is None

    def _what(self) -> str:
        """What is trained, in words."""
        words = [self.words.title] if self.words else []
        network = self.network.title if self.network else "all weights"
        return " and ".join([*words, *([network + self._where()] if self.trains_model else [])])

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
