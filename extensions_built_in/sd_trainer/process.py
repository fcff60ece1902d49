"""The trainer, where everything meets: data, encode, denoiser, loop, save. It reads as these steps, without details."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from extensions_built_in.sd_trainer.sampling import Pictures
from extensions_built_in.sd_trainer.validation import HeldOut
from jobs import Stopped
from toolkit.config.explain import to_yaml
from toolkit.context import DTYPES, Context, make_context
from toolkit.data.cache import RowCache
from toolkit.data.cache_folder import cache_root
from toolkit.data.datasets import Items, read_datasets
from toolkit.data.loader import Position
from toolkit.models.family import Family
from toolkit.networks.full import FullWeights
from toolkit.networks.network import Network
from toolkit.reporting.failures import explained
from toolkit.reporting.loggers import open_loggers
from toolkit.reporting.progress import Progress, bar
from toolkit.reporting.summary import summary
from toolkit.reporting.versions import installed_version, versions
from toolkit.run_folder import RunFolder
from toolkit.sampling.hook import SamplePictures
from toolkit.training.batch import Batch
from toolkit.training.ema import Ema
from toolkit.training.feed import Feed
from toolkit.training.header import header, text_hash
from toolkit.training.hooks import LogLoss, Save
from toolkit.training.loop import Hook, train
from toolkit.training.losses import LossReader
from toolkit.training.pace import Pace
from toolkit.training.path import Path as NoisePath
from toolkit.training.resume import resume
from toolkit.training.schedules import schedule
from toolkit.training.state import TrainState
from toolkit.training.step import step_loss
from toolkit.training.stop import StopFlag
from toolkit.training.times import Times

if TYPE_CHECKING:
    from extensions_built_in.sd_trainer.config import SdTrainer
    from jobs import Job


class SdTrainerProcess:
    """Trains a network, or the whole denoiser, of any model family."""

    def __init__(self, config: SdTrainer, job: Job) -> None:
        self.config, self.job = config, job
        self.folder = RunFolder(Path(config.training_folder).expanduser() / (config.name or job.name), job.name)

    def run(self) -> None:
        """Do it all; raises `Stopped` after a clean stop by the user."""
        config, begin = self.config, time.monotonic()
        context = make_context(config.device, config.train.dtype, config.training_seed)
        with ExitStack() as stack:
            stack.enter_context(explained(self._circumstances()))
            stack.enter_context(self.folder.lock())
            family = config.model.build(
                context,
                checkpointing=config.train.gradient_checkpointing,
                bypass_guidance=config.train.bypass_guidance_embedding,
            )

            data = read_datasets(
                config.datasets,
                family.facts.multiple,
                config.train.batch_size,
                config.trigger_word,
                use_captions=not config.train.unload_text_encoder,
            )
            print(*describe(data), sep="\n", flush=True)
            pictures = Pictures(config, family, context, self.folder, self.job.name)
            held_out = HeldOut(config, family, context)

            feed = self._feed(family, context, data)
            problems = feed.encode([*pictures.texts, *held_out.texts], pictures.negative_texts, bar)
            held_out.encode(feed, bar)
            print(*problems, sep="\n", end="\n" if problems else "", flush=True)

            stack.enter_context(family.parts.using(*family.needs["predict"]))
            state = self._build(family, context)
            resume(state, self.folder, config.train.start_step, print)
            resolved = self._write_down()

            loggers = stack.enter_context(open_loggers(self.folder, config.logging, config.log_dir, state.step))
            progress = stack.enter_context(Progress(config.train.steps, state.step, self.job.name))
            stop = stack.enter_context(StopFlag())
            reader = LossReader(context.device)
            save = self._save_hook(family, context, reader, text_hash(resolved))
            pictures.prepare(feed, loggers, progress)
            sample = pictures.during
            pace = Pace(config.performance_log_every, progress.note) if config.performance_log_every else None
            hooks: list[Hook] = [
                LogLoss(reader, progress.update, loggers.log, config.logging.log_every),
                save,
                *held_out.hooks(feed, loggers, progress),
                *([sample] if sample else []),
                *([pace] if pace else []),
            ]

            with save.rescuing(state):
                pictures.make_first(state)
                first = config.datasets[0]
                batches = feed.batches(stack, state.position, first.num_workers, first.prefetch_factor)
                self._loop(feed, pace.watch(batches) if pace else batches, state, hooks, stop)

            save.save(state, final=state.step >= config.train.steps)
            if state.step < config.train.steps:
                raise Stopped(f"saved at step {state.step} in {self.folder.path}; the same command continues there")
            if sample:
                sample.make(state)
        print(*self._summary(state, family, time.monotonic() - begin, sample), sep="\n", flush=True)

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

    def _write_down(self) -> str:
        text = to_yaml(self.job, self.config)
        self.folder.write_config(text)
        self.folder.write_versions(versions())
        return text

    def _feed(self, family: Family, context: Context, data: Items) -> Feed:
        root = cache_root(self.folder.path, os.environ)
        sections = self.config.datasets
        on_disk = any(section.cache_latents_to_disk for section in sections)
        in_memory = any(section.cache_latents for section in sections)
        images = RowCache(root / "latents" if on_disk else None) if on_disk or in_memory else None
        keep_texts = self.config.train.cache_text_embeddings or any(s.cache_text_embeddings for s in sections)
        return Feed(family, context, data, images, RowCache(root / "text"), keep_texts)

    def _build(self, family: Family, context: Context) -> TrainState:
        """Network, optimizer, average: everything that changes while training."""
        config = self.config
        torch.manual_seed(context.seed)
        trainable = family.facts.trainables[0]
        network: Network
        if config.network is not None:
            network = config.network.build(family.denoiser, trainable)
        else:
            network = FullWeights(family.denoiser, family.needs["predict"][0])
        family.denoiser.train()
        print(*network.describe(), sep="\n", flush=True)
        params = list(network.params.values())
        optimizer = config.train.optimizer_plugin().build(params, config.train.lr)
        ema = config.train.ema_config
        return TrainState(
            network,
            optimizer,
            ema=Ema(params, ema.ema_decay) if ema and ema.use_ema else None,
            scaler=torch.amp.GradScaler(context.device.type) if context.dtype == torch.float16 else None,
        )

    def _save_hook(self, family: Family, context: Context, reader: LossReader, config_hash: str) -> Save:
        config, save = self.config, self.config.save

        def make_header(state: TrainState) -> dict[str, str]:
            entries = header(
                name=self.job.name,
                step=state.step,
                epoch=state.position.epoch,
                version=installed_version("aitk") or "0",
                base_version=family.facts.base_model,
                base_model=self.job.document.mask(config.model.name_or_path),
                config_hash=config_hash,
                network=state.network.header,
                trigger=config.trigger_word,
                meta=self.job.meta,
            )
            return {key: self.job.document.mask(value) for key, value in entries.items()}

        return Save(
            self.folder,
            reader,
            DTYPES[save.dtype],
            make_header,
            every=save.save_every,
            keep=save.max_step_saves_to_keep,
            total=config.train.steps,
        )

    def _loop(
        self,
        feed: Feed,
        batches: Iterator[tuple[Position, Batch]],
        state: TrainState,
        hooks: list[Hook],
        stop: StopFlag,
    ) -> None:
        family, options = feed.family, self.config.train
        path = NoisePath.of(family.facts)
        times = Times(
            options.timestep_type,
            options.content_or_style,
            low=options.min_denoising_steps / 1000,
            high=min(1.0, (options.max_denoising_steps + 1) / 1000),
        )
        train(
            state,
            batches,
            lambda batch: step_loss(family, batch, path, times),
            options.steps,
            schedule(options.lr_scheduler, options.steps, options.lr_scheduler_params, options.lr),
            hooks,
            feed.context,
            stop,
            options.accumulate,
            options.max_grad_norm,
        )

    def _summary(self, state: TrainState, family: Family, seconds: float, sample: SamplePictures | None) -> list[str]:
        return summary(
            self.folder.weights_path(None, extension=state.network.suffix),
            step=state.step,
            seconds=seconds,
            base_model=family.parts.source.location,
            pipeline=family.pipeline,
            trigger=self.config.trigger_word,
            samples_dir=self.folder.samples_dir if sample else None,
            contact_sheet=sample.sheet if sample else None,
            is_adapter=self.config.network is not None,
        )


def describe(data: Items) -> list[str]:
    """What was found: problems first, then the table of buckets."""
    sizes = ", ".join(f"{width}x{height}: {count}" for (width, height), count in data.buckets.items())
    return [*data.problems, f"{len(data.items)} training samples in {len(data.buckets)} buckets ({sizes})"]
