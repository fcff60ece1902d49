"""The run of a slider that trains on data sets: pictures, captions and the slider's own texts, then the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from extensions_built_in.sliders.text_slider import check_texts_suffice
from jobs import Stopped
from toolkit.reporting.progress import bar
from toolkit.trainer.data import make_feed, make_workers, read_data
from toolkit.trainer.session import Session, open_session
from toolkit.training.batch import Batch
from toolkit.training.companions import Companion

if TYPE_CHECKING:
    from jobs import Job
    from toolkit.trainer.data_config import DataTrainerPlugin

DataLosses = Callable[[Session, Batch, int], Iterator[Tensor]]
"""(session, batch, step) -> the losses of a step."""


def train_on_data(config: DataTrainerPlugin, job: Job, companions: Sequence[Companion], losses: DataLosses) -> None:
    """Do it all; raises `Stopped` after a clean stop by the user.

    `companions` are the texts that `losses` asks the network about, beside the captions.
    """
    with open_session(config, job) as session:
        check_texts_suffice(session)
        if session.is_done():
            return
        data = read_data(config, session)
        print(*data.describe(), sep="\n", flush=True)
        workers = session.stack.enter_context(make_workers(config))
        feed = make_feed(config, session, data, workers, companions=companions)
        problems = feed.encode(bar, session.pictures.texts)
        session.pictures.encode()
        print(*problems, sep="\n", end="\n" if problems else "", flush=True)

        session.load()
        stopped = session.train(
            lambda state: feed.batches(
                session.stack, state.position, workers.num_workers, workers.prefetch, state.course
            ),
            lambda batch, step: losses(session, batch, step),
            feed.text_rows.get,
            [],
        )
    if stopped:
        raise Stopped(stopped)
