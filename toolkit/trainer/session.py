"""One run of a trainer, from the lock on its folder to the last file: what all trainers do around data and step."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from toolkit.context import make_context
from toolkit.data.cache.folder import cache_root
from toolkit.data.loader import Position
from toolkit.reporting.failures import explained
from toolkit.reporting.loggers import Loggers, open_loggers
from toolkit.reporting.progress import Progress
from toolkit.run_folder import RunFolder
from toolkit.trainer.aims import Aims
from toolkit.trainer.config import TrainerPlugin
from toolkit.trainer.frozen import Frozen
from toolkit.trainer.pictures import Pictures
from toolkit.trainer.saving import last_lines, save_hook, write_down
from toolkit.trainer.trained import build_state
from toolkit.training.attention import attention_by, check_backend
from toolkit.training.batch import Batch
from toolkit.training.hooks import LogLoss
from toolkit.training.loop import Hook, train
from toolkit.training.losses import LossReader
from toolkit.training.pace import Pace
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
        stack.enter_context(folder.lock())
        yield Session(config, job, folder, stack)


class Session:
    """What a run is made of. The order of use: `encode` what is needed, `load`, `train`."""

    state: TrainState
    loggers: Loggers
    progress: Progress

    def __init__(self, config: TrainerPlugin, job: Job, folder: RunFolder, stack: ExitStack) -> None:
        """Build the family, load nothing of it. ValueError for what cannot be trained."""
        self.config, self.job, self.folder, self.stack = config, job, folder, stack
        self.begin, options = time.monotonic(), config.train
        self.cache = cache_root(folder.path, os.environ)
        self.context = replace(make_context(config.device, options.dtype, config.training_seed), cache=self.cache)
        self.family = config.model.build(
            self.context,
            checkpointing=options.gradient_checkpointing,
            bypass_guidance=options.bypass_guidance_embedding,
        )
        check_backend(options.attention)
        self.aims = Aims(options, self.family.facts)
        self.frozen = Frozen(config.model, self.family)
        self.pictures = Pictures(config, self.family, self.context, folder, job.name)

    def load(self) -> TrainState:
        """Load the denoiser, put in what is trained, restore the state of an earlier start, open the logs."""
        config, family, options = self.config, self.family, self.config.train
        encoders = family.needs["encode_prompt"] if self.aims.live_texts else ()
        denoisers = family.needs["predict"]
        self.stack.enter_context(family.parts.using(*denoisers, *encoders))
        self.stack.enter_context(attention_by(options.attention, [family.parts[name] for name in denoisers]))
        self.frozen.attach()
        self.state = build_state(config, family, self.context, self.aims.trained)
        resume(self.state, self.folder, options.start_step, print)
        self.loggers = self.stack.enter_context(
            open_loggers(self.folder, config.logging, config.log_dir, self.state.step)
        )
        self.progress = self.stack.enter_context(Progress(options.steps, self.state.step, self.job.name))
        return self.state

    def train(self, batches: Batches, losses: Losses, text_row: TextRow, hooks: list[Hook]) -> str:
        """Do the steps that are left, sample and save; returns where it was stopped, "" if it was not.

        `text_row` knows the prompts of `pictures.texts`; `hooks` come after those that log and save.
        """
        config, state = self.config, self.state
        stop = self.stack.enter_context(StopFlag())
        reader = LossReader(self.context.device)
        config_hash = write_down(config, self.job, self.folder)
        save = save_hook(config, self.job, self.folder, self.family, reader, config_hash)
        self.pictures.prepare(text_row, self.loggers, self.progress, self.frozen.sampling)
        sample = self.pictures.during
        pace = Pace(config.performance_log_every, self.progress.note) if config.performance_log_every else None
        log = LogLoss(reader, self.progress.update, self.loggers.log, config.logging.log_every)
        after: list[Hook] = [log, save, *hooks, *([sample] if sample else []), *([pace] if pace else [])]
        with save.rescuing(state):
            self.pictures.make_first(state)
            fed = batches(state)
            self.steps(pace.watch(fed) if pace else fed, losses, after, stop)
        save.save(state, final=state.step >= config.train.steps)
        if state.step < config.train.steps:
            return f"saved at step {state.step} in {self.folder.path}; the same command continues there"
        if sample:
            sample.make(state)
        seconds = time.monotonic() - self.begin
        print(*last_lines(config, self.folder, self.family, state, seconds, sample), sep="\n", flush=True)
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
