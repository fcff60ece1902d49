"""The data sets of a trainer's config: read, and fed to its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolkit.data.datasets import read_datasets
from toolkit.data.items import Items
from toolkit.data.workers import Workers
from toolkit.trainer.noise_rules import make_draws
from toolkit.trainer.preserving import untriggered
from toolkit.training.companions import Companion
from toolkit.training.feed import Feed

if TYPE_CHECKING:
    from toolkit.trainer.data_config import DataTrainerPlugin
    from toolkit.trainer.session import Session


def read_data(config: DataTrainerPlugin, session: Session) -> Items:
    """All samples; every problem with them is an error or a line of `describe()`, before any weight is loaded."""
    data = read_datasets(
        config.datasets,
        session.family.facts.multiple,
        config.train.batch_size,
        config.trigger_word,
        use_captions=not config.train.unload_text_encoder,
        taken=session.family.facts,
        index=session.cache / "index",
        cache=session.cache,
        reg_weight=config.train.reg_weight,
    )
    if config.train.diff_output_preservation:
        data.problems += untriggered(data)
    return data


def make_workers(config: DataTrainerPlugin) -> Workers:
    """Who reads pictures; the first data set decides for all."""
    first = config.datasets[0]
    return Workers(first.num_workers, first.prefetch_factor)


def make_feed(
    config: DataTrainerPlugin,
    session: Session,
    data: Items,
    workers: Workers,
    disk_only: bool = False,
    companions: Sequence[Companion] = (),
) -> Feed:
    """The samples as batches, with the caches that the config asks for; `disk_only`: those on disk alone.

    `companions` are texts beside those that the objective asks for.
    """
    sections = config.datasets
    in_memory = any(section.cache_latents for section in sections) and not disk_only
    # what one rank encodes reaches the others through a file
    on_disk = any(section.cache_latents_to_disk for section in sections) or (in_memory and session.context.world > 1)
    return Feed(
        session.family,
        session.context,
        data,
        session.row_cache("latents", on_disk) if on_disk or in_memory else None,
        session.row_cache("text"),
        config.train.cache_text_embeddings or any(section.cache_text_embeddings for section in sections),
        conditions=session.row_cache("conditions") if on_disk or session.context.world > 1 else None,
        live_texts=session.aims.live_texts,
        options=config.model.encoding,
        workers=workers,
        draws=make_draws(config.train),
        companions=(*session.aims.companions, *companions),
    )
