"""LoRAs that help and are not trained: merged into the base, active always, in training, or while sampling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from toolkit.config.errors import naming
from toolkit.models.family import Family
from toolkit.networks.attached import FrozenNetwork, attach, merge_at_load
from toolkit.networks.group import expert_files

if TYPE_CHECKING:
    from toolkit.config.plugins import ModelPlugin


class Frozen:
    """`model.lora_path`, `assistant_lora_path`, `inference_lora_path`, `accuracy_recovery_adapter` of a config."""

    def __init__(self, model: ModelPlugin, family: Family) -> None:
        """Before the denoiser is loaded."""
        self.model, self.family = model, family
        self._in_training: list[FrozenNetwork] = []
        self._in_sampling: list[FrozenNetwork] = []
        if path := self.model.lora_path:
            with naming("model.lora_path"):
                for file, trainables in expert_files(path, family.facts.denoisers).items():
                    merge_at_load(family.parts, trainables, self.model.key_names, file)

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
        attached: list[FrozenNetwork] = []
        for file, trainables in expert_files(path, self.family.facts.denoisers).items():
            modules = {one: self.family.parts[one.part] for one in trainables}
            attached += attach(modules, self.model.key_names, file, strength)
        return attached
