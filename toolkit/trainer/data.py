"""The data sets of a trainer's config: read, and fed to its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.data.cache.rows import RowCache
from toolkit.data.datasets import read_datasets
from toolkit.data.items import Items
from toolkit.data.workers import Workers
from toolkit.training.feed import Feed

if TYPE_CHECKING:
    from toolkit.trainer.data_config import DataTrainerPlugin
    from toolkit.trainer.session import Session


def read_data(config: DataTrainerPlugin, session: Session) -> Items:
    """All samples; every problem with them is an error or a line of `describe()`, before any weight is loaded."""
    return read_datasets(
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


def make_workers(config: DataTrainerPlugin) -> Workers:
    """Who reads pictures; the first data set decides for all."""
    first = config.datasets[0]
    return Workers(first.num_workers, first.prefetch_factor)


def make_feed(
    config: DataTrainerPlugin, session: Session, data: Items, workers: Workers, disk_only: bool = False
) -> Feed:
    """The samples as batches, with the caches that the config asks for; `disk_only`: those on disk alone."""
    sections, model, root = config.datasets, config.model, session.cache
    on_disk = any(section.cache_latents_to_disk for section in sections)
    in_memory = any(section.cache_latents for section in sections) and not disk_only
    about = {"arch": model.arch, "model": model.name_or_path, "dtype": config.train.dtype}
    images = RowCache(root / "latents" if on_disk else None, about=about) if on_disk or in_memory else None
    # what else decides how texts and references are encoded: part of the keys of their caches
    encoding = {"model_kwargs", "quantize", "quantize_te", "qtype_te", "text_encoder_bits"}
    return Feed(
        session.family,
        session.context,
        data,
        images,
        RowCache(root / "text", about=about),
        config.train.cache_text_embeddings or any(section.cache_text_embeddings for section in sections),
        conditions=RowCache(root / "conditions", about=about) if on_disk else None,
        live_texts=session.aims.live_texts,
        options=model.model_dump_json(include=encoding),
        workers=workers,
    )
