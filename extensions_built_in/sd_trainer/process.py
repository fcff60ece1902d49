"""The trainer, where everything meets: data, encode, denoiser, loop, save. It reads as these steps, without details."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from jobs import Stopped
from toolkit.reporting.progress import bar
from toolkit.trainer.data import make_feed, make_workers, read_data
from toolkit.trainer.held_out import HeldOut
from toolkit.trainer.session import Session, open_session
from toolkit.training.batch import Batch
from toolkit.training.step import step_losses
from toolkit.training.texts import live_row, with_texts

if TYPE_CHECKING:
    from extensions_built_in.sd_trainer.config import SdTrainer
    from jobs import Job


class SdTrainerProcess:
    """Trains a network, or the weights themselves, of any model family."""

    def __init__(self, config: SdTrainer, job: Job) -> None:
        self.config, self.job = config, job

    def run(self) -> None:
        """Do it all; raises `Stopped` after a clean stop by the user."""
        with open_session(self.config, self.job) as session:
            if session.is_done():
                return
            data = read_data(self.config, session)
            print(*data.describe(), sep="\n", flush=True)
            held_out = HeldOut(self.config, session.family, session.context)

            workers = session.stack.enter_context(make_workers(self.config))
            feed, live = make_feed(self.config, session, data, workers), session.aims.live_texts
            ahead = [] if live else [*session.pictures.texts, *held_out.texts]
            problems = feed.encode(bar, ahead)
            session.pictures.encode()
            held_out.encode(feed, bar)
            print(*problems, sep="\n", end="\n" if problems else "", flush=True)

            session.load()
            text_row = live_row(session.family, session.context) if live else feed.text_rows.get
            stopped = session.train(
                lambda state: feed.batches(
                    session.stack, state.position, workers.num_workers, workers.prefetch, state.course
                ),
                lambda batch, step: losses(session, batch, step),
                text_row,
                held_out.hooks(feed, text_row, session.loggers, session.progress),
            )
        if stopped:
            raise Stopped(stopped)

    def fill_caches(self) -> None:
        """Encode what a run of this config would find in its caches on disk, and stop before the denoiser is loaded."""
        with open_session(self.config, self.job) as session:
            data = read_data(self.config, session)
            print(*data.describe(), sep="\n", flush=True)
            held_out = HeldOut(self.config, session.family, session.context)
            workers = session.stack.enter_context(make_workers(self.config))
            feed = make_feed(self.config, session, data, workers, disk_only=True)
            ahead = [] if session.aims.live_texts else [*session.pictures.texts, *held_out.texts]
            problems = feed.encode(bar, ahead)
            if feed.picture_rows.images is None:
                problems.append("no data set has cache_latents_to_disk, so that pictures are not encoded ahead")
            print(*problems, sep="\n", end="\n" if problems else "", flush=True)


def losses(session: Session, batch: Batch, step: int) -> Iterator[Tensor]:
    """The losses of a step."""
    if session.aims.live_texts:
        batch = with_texts(session.family, batch)
    with session.aims.acting(batch):
        yield from step_losses(session.family, batch, session.aims.at(step))
