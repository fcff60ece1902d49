"""What a run leaves: weights with their headers, the resolved config, the last lines on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.config.explain import to_yaml
from toolkit.context import DTYPES
from toolkit.models.family import Family
from toolkit.networks.network import Network
from toolkit.reporting.summary import summary
from toolkit.reporting.versions import installed_version, versions
from toolkit.run_folder import RunFolder
from toolkit.sampling.hook import SamplePictures
from toolkit.training.header import header, text_hash
from toolkit.training.hooks import Save
from toolkit.training.losses import LossReader
from toolkit.training.state import TrainState

if TYPE_CHECKING:
    from jobs import Job
    from toolkit.trainer.config import TrainerPlugin


def write_down(config: TrainerPlugin, job: Job, folder: RunFolder) -> str:
    """Write the resolved config and what the run runs on; returns the hash of the former."""
    text = to_yaml(job, config)
    folder.write_config(text)
    folder.write_versions(versions())
    return text_hash(text)


def save_hook(
    config: TrainerPlugin, job: Job, folder: RunFolder, family: Family, reader: LossReader, config_hash: str
) -> Save:
    """The hook that saves."""

    def make_header(state: TrainState, network: Network) -> dict[str, str]:
        entries = header(
            name=job.name,
            step=state.step,
            epoch=state.position.epoch,
            version=installed_version("aitk") or "0",
            base_version=family.facts.base_model,
            base_model=job.document.mask(config.model.name_or_path),
            config_hash=config_hash,
            network=network.header,
            trigger=config.trigger_word,
            meta=job.meta,
        )
        return {key: job.document.mask(value) for key, value in entries.items()}

    save = config.save
    return Save(
        folder,
        reader,
        DTYPES[save.dtype],
        make_header,
        every=save.save_every,
        keep=save.max_step_saves_to_keep,
        total=config.train.steps,
    )


def last_lines(
    config: TrainerPlugin,
    folder: RunFolder,
    family: Family,
    state: TrainState,
    seconds: float,
    sample: SamplePictures | None,
) -> list[str]:
    """Where the files are, and how to use them."""
    networks = state.network.by_file()
    files = {suffix: folder.weights_path(None, suffix, network.suffix) for suffix, network in networks.items()}
    # DoRA and LoKr, and formats that were asked for, are not read by every pipeline (docs/formats.md)
    is_plain = config.save.key_format in ("auto", "diffusers") and all(
        network.header.get("network_type") == "lora" for network in networks.values()
    )
    second = [trainable.file for trainable in family.facts.trainables if trainable.part == "transformer_2"]
    return summary(
        list(files.values()),
        step=state.step,
        seconds=seconds,
        base_model=family.parts.source.location,
        pipeline=family.pipeline if is_plain and loads_loras(family.pipeline) else None,
        # without it, parts come in the precision of their files, which may differ from part to part
        dtype=str(DTYPES[config.train.dtype]).removeprefix("torch."),
        trigger=config.trigger_word,
        samples_dir=folder.samples_dir if sample else None,
        contact_sheet=sample.sheet if sample else None,
        is_adapter=config.network is not None,
        is_video=bool(family.facts.frame_stride),
        takes_picture=family.facts.needs_references,
        for_second=[path for suffix, path in files.items() if suffix in second],
    )


def loads_loras(pipeline: str) -> bool:
    """Whether diffusers has this pipeline and it takes LoRA files."""
    import diffusers
    from transformers.utils import logging

    level = logging.get_verbosity()
    # importing a pipeline may warn of an image processor that nobody asked for
    logging.set_verbosity_error()
    try:
        return hasattr(getattr(diffusers, pipeline, None), "load_lora_weights")
    finally:
        logging.set_verbosity(level)
