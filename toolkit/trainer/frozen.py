"""LoRAs that help and are not trained: merged into the base, active always, in training, or while sampling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.config.errors import naming
from toolkit.models.family import Family, Trainable
from toolkit.networks.attached import FrozenNetwork, attach, merge_at_load
from toolkit.networks.group import sibling

if TYPE_CHECKING:
    from toolkit.config.plugins import ModelPlugin


class Frozen:
    """`model.lora_path`, `assistant_lora_path`, `inference_lora_path`, `accuracy_recovery_adapter` of a config."""

    def __init__(self, model: ModelPlugin, family: Family) -> None:
        """Before the denoiser is loaded."""
        self.model, self.family = model, family
        self.denoisers = [trainable for trainable in family.facts.trainables if not trainable.is_text_encoder]
        self._in_training: list[FrozenNetwork] = []
        self._in_sampling: list[FrozenNetwork] = []
        if path := self.model.lora_path:
            with naming("model.lora_path"):
                for trainable in self.denoisers:
                    merge_at_load(family.parts, [trainable], self.model.key_names, self._file(path, trainable))

    def attach(self) -> None:
        """Add what is not merged to the loaded denoiser, before what is trained is added."""
        if path := self.model.accuracy_recovery_adapter:
            with naming("model.accuracy_recovery_adapter"):
                self._attach(path, strength=1)
        if path := self.model.assistant_lora_path:
            with naming("model.assistant_lora_path"):
                self._in_training = self._attach(path, strength=1)
        if path := self.model.inference_lora_path:
            with naming("model.inference_lora_path"):
                self._in_sampling = self._attach(path, strength=0)

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Inside the block, the network for training is off and the one for sampling on."""
        with ExitStack() as stack:
            for network in self._in_training:
                stack.enter_context(network.scaled(0))
            for network in self._in_sampling:
                stack.enter_context(network.scaled(1))
            yield

    def _attach(self, path: str, strength: float) -> list[FrozenNetwork]:
        return [
            attach(
                self.family.parts[trainable.part],
                trainable,
                self.model.key_names,
                self._file(path, trainable),
                strength,
            )
            for trainable in self.denoisers
        ]

    def _file(self, path: str, trainable: Trainable) -> str:
        """The file for one expert, beside that of the other; the same file for all if there is no such one."""
        suffixes = dict.fromkeys(one.file for one in self.denoisers)
        own = sibling(Path(path).expanduser(), trainable.file, suffixes)
        return str(own) if len(suffixes) > 1 and own.exists() else path
