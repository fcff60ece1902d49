"""An adapter: trained updates of single layers of a frozen module, of whatever kind, and their file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from toolkit.config.key_names import KeyNames
from toolkit.models.family import Trainable
from toolkit.networks.files import write_weights
from toolkit.networks.keys.codec import Codec
from toolkit.networks.keys.file import read_tensors
from toolkit.networks.keys.names import of_expert
from toolkit.networks.network import Network, group_params, lr_of
from toolkit.networks.targets import Targets


class Update(Protocol):
    """The trained update of one layer. In a file its alpha is multiplied in, so that readers need not know it."""

    @property
    def params(self) -> Mapping[str, Parameter]:
        """Trained parameters by their native suffix, e.g. "lora_A.weight"."""
        ...

    def act(self, strength: float) -> None:
        """Act with `strength` times the trained strength from here on; 0: not at all."""
        ...

    def written(self) -> dict[str, Tensor]:
        """The tensors of a file by native suffix."""
        ...

    def fitted(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `params` become from the tensors of a file, converted if they have another rank.

        Raises ValueError if they are of another kind or of another layer.
        """
        ...


class Adapter:
    """The updates of one module's layers."""

    suffix = ".safetensors"

    def __init__(
        self,
        title: str,
        trainable: Trainable,
        targets: Targets,
        updates: Mapping[str, Update],
        header: Mapping[str, str],
        codec: Codec | None = None,
    ) -> None:
        self.title, self.trainable, self.targets, self.updates = title, trainable, targets, updates
        self.prefix = trainable.prefix
        self.codec = codec or Codec(KeyNames(), trainable.prefix)
        self.header: Mapping[str, str] = {**header, "alpha_folded": "true", "key_format": self.codec.format}
        self.params: Mapping[str, Parameter] = {
            f"{layer}.{suffix}": param for layer, update in updates.items() for suffix, param in update.params.items()
        }
        for param in self.params.values():
            # the frozen layer that it was made beside may be waiting elsewhere
            param.data = param.data.to(targets.device, torch.float32)
            param.requires_grad_(True)
        self._strength = 1.0
        self._known = frozenset(targets.known)
        if self.codec.format != "diffusers":
            # what a format cannot hold is refused here, not at the first save
            self.tensors()

    def describe(self) -> list[str]:
        """Lines for the start of the run: layers, parameters, matches per pattern, warnings."""
        count = sum(param.numel() for param in self.params.values())
        choice, fully = self.targets.choice, len(self.targets.full)
        line = f"{self.title}: {len(self.updates)} layers, {count:,} parameters"
        lines = [f"{line} ({fully} layers trained fully)" if 0 < fully < len(self.updates) else line]
        lines += [f"  {pattern!r} matches {number} layers" for pattern, number in choice.matches]
        return lines + [f"  warning: {warning}" for warning in choice.warnings]

    def param_groups(
        self, lr: float, text_lr: float | None = None, plus_ratio: float | None = None
    ) -> list[dict[str, Any]]:
        """The parameters as groups of an optimizer."""
        return group_params(self.params, lr_of(self.trainable.part, lr, text_lr), plus_ratio)

    @contextmanager
    def scaled(self, multiplier: float) -> Iterator[None]:
        """Multiply the update's strength inside the block; 0 switches it off."""
        before = self._strength
        self._act(before * multiplier)
        try:
            yield
        finally:
            self._act(before)

    def _act(self, strength: float) -> None:
        self._strength = strength
        for update in self.updates.values():
            update.act(strength)

    def by_file(self) -> Mapping[str, Network]:
        """All of it goes into one file."""
        return {self.trainable.file: self}

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a file, under the names of its key format."""
        return self.codec.encode(
            {
                f"{self.prefix}{layer}.{suffix}": tensor.detach()
                for layer, update in self.updates.items()
                for suffix, tensor in update.written().items()
            }
        )

    def write(self, path: Path, dtype: torch.dtype, header: Mapping[str, str]) -> None:
        """Write the file `path`."""
        write_weights(path, self.tensors(), dtype, header)

    def read(self, path: Path, exact: bool = True) -> list[str]:
        """Continue from the file `path`. Raises ValueError, changing nothing, if it belongs to another network."""
        values, notes = self.fitted(read_tensors(path)[0], path, exact)
        if not values:
            raise ValueError(f"{path}: has nothing for {self.trainable.part}")
        self.take(values)
        return notes

    def fitted(self, found: Mapping[str, Tensor], source: Path, exact: bool) -> tuple[dict[str, Tensor], list[str]]:
        """(values of `params`, what is to be said about them) from the tensors of a file."""
        tensors: dict[str, dict[str, Tensor]] = {}
        for name, tensor in self._decoded(found, source).items():
            layer = self._layer_of(name)
            tensors.setdefault(layer, {})[name.removeprefix(f"{self.prefix}{layer}.")] = tensor.float()
        if foreign := tensors.keys() - self.updates.keys():
            raise ValueError(f"{source}: has layers that this network lacks, e.g. {self.prefix}{min(foreign)}")
        missing = [layer for layer in self.updates if layer not in tensors]
        if missing and exact:
            raise ValueError(f"{source}: {self.prefix}{missing[0]} is missing ({len(missing)} of {len(self.updates)})")
        values: dict[str, Tensor] = {}
        converted: list[str] = []
        for layer, saved in tensors.items():
            change = self._change(layer, saved)
            if change and exact:
                raise ValueError(f"{source}: {self.prefix}{layer} has {change}")
            converted += [f"{self.prefix}{layer} has {change}"] if change else []
            try:
                fitted = self.updates[layer].fitted(saved)
            except ValueError as error:
                raise ValueError(f"{source}: {self.prefix}{layer} {error}") from error
            values.update({f"{layer}.{suffix}": tensor for suffix, tensor in fitted.items()})
        notes = []
        if converted:
            notes.append(f"{source.name}: {len(converted)} layers converted, e.g. {converted[0]}")
        if missing:
            notes.append(f"{source.name}: {len(missing)} layers of {self.trainable.part} are not in it and start anew")
        return values, notes

    def _decoded(self, found: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
        try:
            return self.codec.decode(of_expert(found, self.trainable.part), self.targets.known)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    @torch.no_grad()
    def take(self, values: Mapping[str, Tensor]) -> None:
        """Set parameters to what `fitted` returned."""
        for name, value in values.items():
            self.params[name].copy_(value)

    def _layer_of(self, name: str) -> str:
        """The layer of a native name; layer names have dots, and so have suffixes."""
        parts = name.removeprefix(self.prefix).split(".")
        heads = (".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1))
        return next(head for head in heads if head in self._known)

    def _change(self, layer: str, saved: Mapping[str, Tensor]) -> str:
        """How the tensors of a file differ from what this network writes; "" if they do not."""
        mine = {suffix: tuple(tensor.shape) for suffix, tensor in self.updates[layer].written().items()}
        found = {suffix: tuple(tensor.shape) for suffix, tensor in saved.items()}
        if mine == found:
            return ""
        other = min(suffix for suffix in mine.keys() | found.keys() if mine.get(suffix) != found.get(suffix))
        if other not in found:
            return f"no {other}"
        return f"{other} of shape {list(found[other])}, here {list(mine[other]) if other in mine else 'none'}"
