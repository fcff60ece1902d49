"""The trainer, where everything meets: data, encode, denoiser, loop, save. It reads as these steps, without details."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from extensions_built_in.sd_trainer.frozen import Frozen
from extensions_built_in.sd_trainer.objective import Objective
from extensions_built_in.sd_trainer.sampling import Pictures
from extensions_built_in.sd_trainer.saving import last_lines, save_hook, write_down
from extensions_built_in.sd_trainer.trained import build_state
from extensions_built_in.sd_trainer.validation import HeldOut
from jobs import Stopped
from toolkit.context import Context, make_context
from toolkit.data.cache.folder import cache_root
from toolkit.data.cache.rows import RowCache
from toolkit.data.datasets import read_datasets
from toolkit.data.items import Items
from toolkit.data.loader import Position
from toolkit.data.workers import Workers
from toolkit.models.family import Family
from toolkit.reporting.failures import explained
from toolkit.reporting.loggers import open_loggers
from toolkit.reporting.progress import Progress, bar
from toolkit.run_folder import RunFolder
from toolkit.training.attention import attention_by, check_backend
from toolkit.training.batch import Batch
from toolkit.training.feed import Feed
from toolkit.training.hooks import LogLoss
from toolkit.training.loop import Hook, train
from toolkit.training.losses import LossReader
from toolkit.training.pace import Pace
from toolkit.training.resume import resume
from toolkit.training.schedules import schedule
from toolkit.training.state import TrainState
from toolkit.training.stop import StopFlag
from toolkit.training.texts import live_row

if TYPE_CHECKING:
    from extensions_built_in.sd_trainer.config import SdTrainer
    from jobs import Job


class SdTrainerProcess:
    """Trains a network, or the weights themselves, of any model family."""

    def __init__(self, config: SdTrainer, job: Job) -> None:
        self.config, self.job = config, job
        self.folder = RunFolder(Path(config.training_folder).expanduser() / (config.name or job.name), job.name)

    def run(self) -> None:
        """Do it all; raises `Stopped` after a clean stop by the user."""
        config, options, begin = self.config, self.config.train, time.monotonic()
        with ExitStack() as stack:
            stack.enter_context(explained(self._circumstances()))
            stack.enter_context(self.folder.lock())
            family, context, cache = self._build()
            check_backend(options.attention)
            objective = Objective(config, family)
            frozen = Frozen(config, family)

            data = self._read_data(family, cache)
            print(*data.describe(), sep="\n", flush=True)
            pictures = Pictures(config, family, context, self.folder, self.job.name)
            held_out = HeldOut(config, family, context)

            workers = stack.enter_context(self._workers())
            feed = self._feed(family, context, data, cache, workers, objective.live_texts)
            ahead = [] if objective.live_texts else [*pictures.texts, *held_out.texts]
            problems = feed.encode((), (), bar, ahead)
            pictures.encode()
            held_out.encode(feed, bar)
            print(*problems, sep="\n", end="\n" if problems else "", flush=True)

            encoders = family.needs["encode_prompt"] if objective.live_texts else ()
            stack.enter_context(family.parts.using(*family.needs["predict"], *encoders))
            stack.enter_context(
                attention_by(options.attention, [family.parts[name] for name in family.needs["predict"]])
            )
            frozen.attach()
            state = build_state(config, family, context, objective.trained)
            resume(state, self.folder, options.start_step, print)
            config_hash = write_down(config, self.job, self.folder)

            loggers = stack.enter_context(open_loggers(self.folder, config.logging, config.log_dir, state.step))
            progress = stack.enter_context(Progress(options.steps, state.step, self.job.name))
            stop = stack.enter_context(StopFlag())
            reader = LossReader(context.device)
            save = save_hook(config, self.job, self.folder, family, reader, config_hash)
            text_row = live_row(family, context) if objective.live_texts else feed.text_rows.get
            pictures.prepare(text_row, loggers, progress, frozen.sampling)
            sample = pictures.during
            pace = Pace(config.performance_log_every, progress.note) if config.performance_log_every else None
            hooks: list[Hook] = [
                LogLoss(reader, progress.update, loggers.log, config.logging.log_every),
                save,
                *held_out.hooks(feed, text_row, loggers, progress),
                *([sample] if sample else []),
                *([pace] if pace else []),
            ]

            with save.rescuing(state):
                pictures.make_first(state)
                batches = feed.batches(stack, state.position, workers.num_workers, workers.prefetch)
                self._loop(feed, pace.watch(batches) if pace else batches, state, hooks, stop)

            save.save(state, final=state.step >= options.steps)
            if state.step < options.steps:
                raise Stopped(f"saved at step {state.step} in {self.folder.path}; the same command continues there")
            if sample:
                sample.make(state)
        seconds = time.monotonic() - begin
        print(*last_lines(config, self.folder, family, state, seconds, sample), sep="\n", flush=True)

    def fill_caches(self) -> None:
        """Encode what a run of this config would find in its caches on disk, and stop before the denoiser is loaded."""
        with ExitStack() as stack:
            stack.enter_context(explained(self._circumstances()))
            family, context, cache = self._build()
            live_texts = Objective(self.config, family).live_texts
            data = self._read_data(family, cache)
            print(*data.describe(), sep="\n", flush=True)
            prompts = [
                *Pictures(self.config, family, context, self.folder, self.job.name).texts,
                *HeldOut(self.config, family, context).texts,
            ]
            workers = stack.enter_context(self._workers())
            feed = self._feed(family, context, data, cache, workers, live_texts, disk_only=True)
            problems = feed.encode((), (), bar, [] if live_texts else prompts)
            if feed.picture_rows.images is None:
                problems.append("no data set has cache_latents_to_disk, so that pictures are not encoded ahead")
            print(*problems, sep="\n", end="\n" if problems else "", flush=True)

    def _build(self) -> tuple[Family, Context, Path]:
        """The model, nothing of it loaded; where it computes; and the folder of the caches."""
        config, options = self.config, self.config.train
        cache = cache_root(self.folder.path, os.environ)
        context = replace(make_context(config.device, options.dtype, config.training_seed), cache=cache)
        family = config.model.build(
            context,
            checkpointing=options.gradient_checkpointing,
            bypass_guidance=options.bypass_guidance_embedding,
        )
        return family, context, cache

    def _workers(self) -> Workers:
        """Who reads pictures; the first data set decides for all."""
        first = self.config.datasets[0]
        return Workers(first.num_workers, first.prefetch_factor)

    def _loop(
        self,
        feed: Feed,
        batches: Iterator[tuple[Position, Batch]],
        state: TrainState,
        hooks: list[Hook],
        stop: StopFlag,
    ) -> None:
        options = self.config.train
        train(
            state,
            batches,
            Objective(self.config, feed.family).loss,
            options.steps,
            schedule(options.lr_scheduler, options.steps, options.lr_scheduler_params, options.lr),
            hooks,
            feed.context,
            stop,
            options.accumulate,
            options.max_grad_norm,
        )

    def on_error(self, error: BaseException) -> None:
        """Nothing is held outside `run`."""

    def _circumstances(self) -> dict[str, object]:
        """What decides which advice fits a failure."""
        model, options = self.config.model, self.config.train
        return {
            "batch_size": options.batch_size,
            "resolution": max(size for section in self.config.datasets for size in section.resolutions),
            "quantize": model.quantize,
            "gradient_checkpointing": options.gradient_checkpointing,
            "optimizer": options.optimizer,
            "folder": str(self.folder.path),
            "model": model.name_or_path,
        }

    def _read_data(self, family: Family, cache: Path) -> Items:
        config = self.config
        return read_datasets(
            config.datasets,
            family.facts.multiple,
            config.train.batch_size,
            config.trigger_word,
            use_captions=not config.train.unload_text_encoder,
            taken=family.facts,
            index=cache / "index",
            cache=cache,
            reg_weight=config.train.reg_weight,
        )

    def _feed(
        self,
        family: Family,
        context: Context,
        data: Items,
        root: Path,
        workers: Workers,
        live_texts: bool,
        disk_only: bool = False,
    ) -> Feed:
        sections, model = self.config.datasets, self.config.model
        on_disk = any(section.cache_latents_to_disk for section in sections)
        in_memory = any(section.cache_latents for section in sections) and not disk_only
        about = {"arch": model.arch, "model": model.name_or_path, "dtype": self.config.train.dtype}
        images = RowCache(root / "latents" if on_disk else None, about=about) if on_disk or in_memory else None
        keep_texts = self.config.train.cache_text_embeddings or any(s.cache_text_embeddings for s in sections)
        # what else decides how texts and references are encoded: part of the keys of their caches
        options = model.model_dump_json(
            include={"model_kwargs", "quantize", "quantize_te", "qtype_te", "text_encoder_bits"}
        )
        return Feed(
            family,
            context,
            data,
            images,
            RowCache(root / "text", about=about),
            keep_texts,
            conditions=RowCache(root / "conditions", about=about) if on_disk else None,
            live_texts=live_texts,
            options=options,
            workers=workers,
        )
