"""`train.merge_network_on_save`: the whole model with what was trained merged in, beside the files of every save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from toolkit.config.key_names import KeyNames
from toolkit.context import DTYPES
from toolkit.models.family import Family, Trainable
from toolkit.networks.attached import network_file
from toolkit.networks.group import expert_files
from toolkit.trainer.trained import choose_trained, teaches
from toolkit.weights.base import Base, open_base
from toolkit.weights.into_base import Added, merge_into_base, plan_updates

if TYPE_CHECKING:
    from toolkit.trainer.config import TrainerPlugin


class Merged:
    """Merges the network files of a save into the checkpoint: a folder, or a file where the checkpoint is one.

    From files to files, tensor by tensor, so that it takes no memory from the training, and a model that is quantized
    while training is merged in full precision.
    """

    def __init__(
        self,
        base: Base,
        trained: Mapping[str, str | None],
        before: list[Added],
        strength: float,
        names: KeyNames,
        dtype: torch.dtype,
    ) -> None:
        """`trained`: suffix of a file -> the denoiser that it is for, or None for the only one; `before`: merged first.

        ValueError if the checkpoint cannot be merged into.
        """
        for part in base.denoisers:
            base.open(part)
        self.base, self.trained, self.before = base, trained, before
        self.strength, self.names, self.dtype = strength, names, dtype
        self.ending = "_merged" if base.file is None else "_merged.safetensors"

    def write(self, files: Mapping[str, Path], target: Path) -> None:
        """Merge `files`, those of a save by suffix, and write the model `target`."""
        key = "train.merge_network_on_save"
        trained = [Added(files[suffix], self.strength, part, key) for suffix, part in self.trained.items()]
        added = [*self.before, *trained]
        updates, _ = plan_updates(self.base, added, self.names)
        merge_into_base(self.base, updates, target, added=added, dtype=self.dtype)


def make_merged(config: TrainerPlugin, family: Family) -> Merged | None:
    """What merges at every save, if the config asks for it. ValueError if the checkpoint cannot be merged into."""
    options, model = config.train, config.model
    if not options.merge_network_on_save:
        return None
    return Merged(
        open_base(model.name_or_path, model.revision),
        _places(choose_trained(family.facts, options, teaches(config))),
        _merged_before(model.lora_path, family.facts.denoisers) if model.lora_path else [],
        options.merge_network_on_save_strength,
        model.key_names,
        DTYPES[config.save.dtype],
    )


def _merged_before(path: str, experts: Sequence[Trainable]) -> list[Added]:
    """What the model is loaded with: a file for each expert, or the same one for all."""
    found = {one.part: network_file(file) for file, members in expert_files(path, experts).items() for one in members}
    return [Added(file, part=part if len(experts) > 1 else None, key="model.lora_path") for part, file in found.items()]


def _places(trained: tuple[Trainable, ...]) -> dict[str, str | None]:
    """Suffix of a network's file -> the expert that it is for; the only file of a model has no suffix."""
    return {one.file: one.part if one.file else None for one in trained}
