"""One run of a trainer, from the lock on its folder to the last file: what all trainers do around data and step."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from torch import Tensor

from toolkit.context import make_context
from toolkit.data.cache.folder import cache_root
from toolkit.data.cache.rows import RowCache
from toolkit.data.loader import Position
from toolkit.launch.environment import own_rank
from toolkit.launch.record import Record
from toolkit.networks.shared import is_shared
from toolkit.reporting.failures import explained
from toolkit.reporting.loggers import Loggers, open_loggers
from toolkit.reporting.progress import Progress
from toolkit.run_folder import RunFolder
from toolkit.trainer.aims import Aims
from toolkit.trainer.config import TrainerPlugin
from toolkit.trainer.ending import finish, has_ended
from toolkit.trainer.frozen import Frozen
from toolkit.trainer.heartbeat import Heartbeat, recording
from toolkit.trainer.pictures import Pictures
from toolkit.trainer.saving import save_hook, write_down
from toolkit.trainer.stop_files import StopFiles
from toolkit.trainer.trained import build_state, teaches
from toolkit.training.attention import attention_by, check_backend
from toolkit.training.batch import Batch
from toolkit.training.hooks import LogLoss
from toolkit.training.loop import Hook, train
from toolkit.training.losses import LossReader
from toolkit.training.pace import Pace
from toolkit.training.ranks import align
from toolkit.training.resume import resume
from toolkit.training.schedules import schedule
from toolkit.training.state import TrainState
from toolkit.training.stop import StopFlag
from toolkit.training.texts import TextRow

if TYPE_CHECKING:
    from jobs import Job

Batches = Callable[[TrainState], Iterator[tuple[Position, Batch]]]
Losses = Callable[[Batch, int], Iterator[Tensor]]
"""(batch, step) -> the losses of a step, see `toolkit/training/loop.py`."""


@contextmanager
def open_session(config: TrainerPlugin, job: Job) -> Iterator[Session]:
    """The run's folder locked and its model described; failures are explained on the way out."""
    folder = RunFolder(config.folder(job.name), job.name)
    with ExitStack() as stack:
        stack.enter_context(explained(_circumstances(config, folder)))
        record = None
        if own_rank(os.environ) == 0:
            stack.enter_context(folder.lock())
            record = stack.enter_context(recording(folder))
        yield Session(config, job, folder, stack, record)


class Session:
    """What a run is made of. The order of use, unless it `is_done`: `encode` what is needed, `load`, `train`."""

    state: TrainState
    loggers: Loggers
    progress: Progress

    def __init__(
        self, config: TrainerPlugin, job: Job, folder: RunFolder, stack: ExitStack, record: Record | None
    ) -> None:
        """Build the family, load nothing of it. ValueError for what cannot be trained."""
        self.config, self.job, self.folder, self.stack, self.record = config, job, folder, stack, record
        self.begin, options = time.monotonic(), config.train
        self.cache = cache_root(folder.path, os.environ)
        context = make_context(config.device, options.dtype, config.training_seed, together=True)
        self.context = replace(context, cache=self.cache)
        self.context.wait()  # the first rank may have made what is trained
        if (world := self.context.world) > 1:
            each = options.batch_size * options.accumulate
            print(f"{world} processes take each step together: {each} samples each, {each * world} in all", flush=True)
        self.family = config.model.build(
            self.context,
            checkpointing=options.gradient_checkpointing,
            bypass_guidance=options.bypass_guidance_embedding,
        )
        check_backend(options.attention)
        self.aims = Aims(options, self.family.facts, teaches(config))
        self.frozen = Frozen(config.model, self.family)
        self.pictures = Pictures(config, self.family, self.context, folder, job.name)

    def is_done(self) -> bool:
        """Whether an earlier start has left nothing to do; says so. Then nothing needs to be loaded."""
        total = self.config.train.steps
        if not self.context.of_first(lambda: has_ended(self.config, self.job, self.folder, len(self.pictures.prompts))):
            return False
        if self.record:
            self.record.note(state="done", step=total, total=total)
            print(f"all {total} steps were done before, in {self.folder.path}; a higher train.steps goes on from there")
        return True

    def row_cache(self, name: str, on_disk: bool = True) -> RowCache:
        """The rows of that name in the cache of the run, or in memory alone."""
        model = self.config.model
        about = {"arch": model.arch, "model": model.name_or_path, "dtype": self.config.train.dtype}
        return RowCache(self.cache / name if on_disk else None, about=about)

    def load(self) -> TrainState:
        """Load the denoiser, put in what is trained, restore the state of an earlier start, open the logs."""
        config, family, options = self.config, self.family, self.config.train
        encoders = family.needs["encode_prompt"] if self.aims.live_texts else ()
        denoisers = family.needs["predict"]
        self.stack.enter_context(family.parts.using(*denoisers, *encoders))
        self.stack.enter_context(attention_by(options.attention, [family.parts[name] for name in denoisers]))
        self.frozen.attach()
        self.state = build_state(config, family, self.context, self.aims.trained)
        self.aims.bind(self.state.network)
        resume(self.state, self.folder, options.start_step, print)
        align(self.state, self.context)
        self.loggers = Loggers([])
        if self.context.is_first:
            self.loggers = self.stack.enter_context(
                open_loggers(self.folder, config.logging, config.log_dir, self.state.step)
            )
        self.progress = self.stack.enter_context(Progress(options.steps, self.state.step, self.job.name))
        return self.state

    def train(self, batches: Batches, losses: Losses, text_row: TextRow, hooks: list[Hook]) -> str:
        """Do the steps that are left, sample and save; returns where it was stopped, "" if it was not.

        `text_row` knows the prompts of `pictures.texts`; `hooks` come after those that log and save.
        """
        config, state, first = self.config, self.state, self.state.step
        stop = self.stack.enter_context(StopFlag())
        shared = is_shared(state.params[0])
        if not (self.context.is_first or shared):
            return self._follow(batches, losses, text_row, stop)
        reader, folder = LossReader(self.context.device), self.folder
        if not self.context.is_first:
            # what it takes to make pictures, or shared weights whole, is done by all ranks, and kept by the first
            folder = RunFolder(self.stack.enter_context(TemporaryDirectory()), folder.name)
            self.pictures.folder = folder
        config_hash = write_down(config, self.job, folder)
        save = save_hook(config, self.job, folder, self.family, reader, config_hash)
        self.pictures.prepare(text_row, self.loggers, self.progress, self.frozen.sampling)
        sample = self.pictures.during
        pace = Pace(config.performance_log_every, self.progress.note) if config.performance_log_every else None
        log = LogLoss(reader, self.progress.update, self.loggers.log, config.logging.log_every, config.train.steps)
        beat = Heartbeat(self.record, self.folder, config.train.steps, state.step) if self.record else None
        files = StopFiles(self.folder.path, stop, None if shared else save.save) if self.context.is_first else None
        after: list[Hook] = [log, save, *hooks, *(hook for hook in (sample, pace, beat, files) if hook)]
        with nullcontext() if shared else save.rescuing(state):
            if not shared:
                save.mend(state, self.progress.note)
            self.pictures.make_first(state)
            fed = batches(state)
            self.steps(pace.watch(fed) if pace else fed, losses, after, stop)
        save.save(state, final=state.step >= config.train.steps)
        if state.step < config.train.steps:
            stopped = f"saved at step {state.step} in {self.folder.path}; the same command continues there"
            if beat:
                beat.end(state.step, stopped)
            return stopped
        if sample:
            sample.make_last(state, first)
        if beat:
            seconds = time.monotonic() - self.begin
            finish(config, self.job, folder, self.family, state, seconds, sample)
            beat.end(state.step, "")
        return ""

    def _follow(self, batches: Batches, losses: Losses, text_row: TextRow, stop: StopFlag) -> str:
        """The same on another rank than the first, which takes part in the steps and in making pictures."""
        state, total, first = self.state, self.config.train.steps, self.state.step
        self.pictures.prepare(text_row, self.loggers, self.progress, self.frozen.sampling)
        sample = self.pictures.during
        self.pictures.make_first(state)
        self.steps(batches(state), losses, [sample] if sample else [], stop)
        if state.step < total:
            return f"rank {self.context.rank} stopped at step {state.step}"
        if sample:
            sample.make_last(state, first)
        return ""

    def steps(
        self, batches: Iterator[tuple[Position, Batch]], losses: Losses, hooks: Sequence[Hook], stop: StopFlag
    ) -> None:
        """The steps alone, with the schedule and limits of the config."""
        options = self.config.train
        train(
            self.state,
            batches,
            losses,
            options.steps,
            schedule(options.lr_scheduler, options.steps, options.lr_scheduler_params, options.lr),
            hooks,
            self.context,
            stop,
            options.accumulate,
            options.max_grad_norm,
        )


def _circumstances(config: TrainerPlugin, folder: RunFolder) -> dict[str, object]:
    """What decides which advice fits a failure."""
    model, options = config.model, config.train
    return {
        "batch_size": options.batch_size,
        "resolution": max(config.resolutions(), default=0),
        "quantize": model.quantize,
        "gradient_checkpointing": options.gradient_checkpointing,
        "optimizer": options.optimizer,
        "folder": str(folder.path),
        "model": model.name_or_path,
    }
