"""What a run writes while it goes: weights with their headers, the resolved config, what it ran on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from toolkit.config.explain import to_yaml
from toolkit.context import DTYPES
from toolkit.launch.save_time import save_time
from toolkit.models.family import Family
from toolkit.networks.network import Network
from toolkit.reporting.versions import installed_version, versions
from toolkit.run_folder import RunFolder
from toolkit.trainer.merging import make_merged
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
    folder.write_versions(versions(job.extensions))
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
        beside=make_merged(config, family),
        timed=save_time(os.environ),
    )
