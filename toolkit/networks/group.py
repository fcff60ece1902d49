"""Several trained modules as one network: two experts, or a denoiser with its text encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module, Parameter

from toolkit.models.family import Trainable
from toolkit.networks.adapter import Adapter
from toolkit.networks.files import write_weights
from toolkit.networks.keys.codec import Codec
from toolkit.networks.keys.file import read_tensors
from toolkit.networks.network import Network
from toolkit.networks.targets import NoLayersLeft


class NetworkGroup:
    """The networks of several modules. Experts have a file each; text encoders share the denoiser's."""

    def __init__(self, members: Sequence[tuple[Trainable, Network]], notes: Sequence[str] = ()) -> None:
        self.members, self.notes = members, notes
        first = members[0][1]
        self.suffix, self.header = first.suffix, first.header
        self.params: Mapping[str, Parameter] = {
            f"{trainable.part}.{name}": param
            for trainable, network in members
            for name, param in network.params.items()
        }
        for networks in self._files().values():
            if self.suffix and len(networks) > 1 and not all(isinstance(network, Adapter) for network in networks):
                raise ValueError("save.save_format: a single file holds one model; text encoders need 'diffusers'")

    def describe(self) -> list[str]:
        """Lines for the start of the run, module by module."""
        if len(self.members) == 1:
            return [*self.members[0][1].describe(), *self.notes]
        lines = [f"{trainable.part}: {line}" for trainable, network in self.members for line in network.describe()]
        count = sum(param.numel() for param in self.params.values())
        return [*lines, *self.notes, f"{count:,} trained parameters in {len(self.members)} modules"]

    def param_groups(
        self, lr: float, text_lr: float | None = None, plus_ratio: float | None = None
    ) -> list[dict[str, Any]]:
        """The parameters as groups of an optimizer, in the order of `params` unless there is a `plus_ratio`."""
        return [group for _, network in self.members for group in network.param_groups(lr, text_lr, plus_ratio)]

    @contextmanager
    def scaled(self, multiplier: float) -> Iterator[None]:
        """Multiply the strength of all of them inside the block."""
        with ExitStack() as stack:
            for _, network in self.members:
                stack.enter_context(network.scaled(multiplier))
            yield

    def by_file(self) -> Mapping[str, Network]:
        """What goes into each file; a folder takes them all."""
        if not self.suffix:
            return {"": self}
        files = self._files()
        if len(files) == 1:
            return {next(iter(files)): self}
        parts = {file: [member for member in self.members if member[0].file == file] for file in files}
        return {file: NetworkGroup(members) for file, members in parts.items()}

    def write(self, path: Path, dtype: torch.dtype, header: Mapping[str, str]) -> None:
        """Write one file or folder, or for experts the files beside `path` that are named like it."""
        parts = self.by_file()
        if len(parts) > 1:
            for suffix, part in parts.items():
                part.write(sibling(path, suffix, parts), dtype, header)
        elif self.suffix and len(self.members) > 1:
            adapters = self._adapters().values()
            tensors = {name: tensor for adapter in adapters for name, tensor in adapter.tensors().items()}
            write_weights(path, tensors, dtype, header)
        else:
            for _, network in self.members:
                network.write(path, dtype, header)

    def read(self, path: Path, exact: bool = True) -> list[str]:
        """Continue from one file or folder, or for experts from the files beside `path` that are named like it."""
        parts = self.by_file()
        if len(parts) > 1:
            files = {suffix: sibling(path, suffix, parts) for suffix in parts}
            if not exact and not any(file.exists() for file in files.values()):
                files = dict.fromkeys(parts, path)
            return [note for suffix, part in parts.items() for note in part.read(files[suffix], exact)]
        if self.suffix and len(self.members) > 1:
            return self._read_shared(path, exact)
        return [note for _, network in self.members for note in network.read(path, exact)]

    def _read_shared(self, path: Path, exact: bool) -> list[str]:
        found, adapters = read_tensors(path)[0], self._adapters()
        results = {part: adapter.fitted(found, path, exact) for part, adapter in adapters.items()}
        if not any(values for values, _ in results.values()):
            raise ValueError(f"{path}: has nothing for {', '.join(adapters)}")
        for part, (values, _) in results.items():
            adapters[part].take(values)
        return [note for _, notes in results.values() for note in notes]

    def _adapters(self) -> dict[str, Adapter]:
        """The members that share a file, by part."""
        return {trainable.part: network for trainable, network in self.members if isinstance(network, Adapter)}

    def _files(self) -> dict[str, list[Network]]:
        files: dict[str, list[Network]] = {}
        for trainable, network in self.members:
            files.setdefault(trainable.file, []).append(network)
        return files


def build_group(
    build: Callable[[Module, Trainable, Codec], Network],
    places: Sequence[tuple[Module, Trainable, Codec]],
    others: Sequence[tuple[Trainable, Network]] = (),
) -> NetworkGroup:
    """A network for each place where the rules leave layers, beside `others`. Raises NoLayersLeft if there is none."""
    members: list[tuple[Trainable, Network]] = []
    empty: list[NoLayersLeft] = []
    notes = []
    for module, trainable, codec in places:
        try:
            members.append((trainable, build(module, trainable, codec)))
        except NoLayersLeft as error:
            empty.append(error)
            notes.append(f"{trainable.part}: nothing is trained, the rules leave no layer")
    if places and not members:
        raise empty[0]
    return NetworkGroup([*others, *members], notes)


def expert_files(path: str, experts: Sequence[Trainable]) -> dict[str, list[Trainable]]:
    """The file of each expert, beside that of the others, with whom it is for; `path` for those that have none."""
    suffixes = dict.fromkeys(one.file for one in experts)
    found: dict[str, list[Trainable]] = {}
    for one in experts:
        own = sibling(Path(path).expanduser(), one.file, suffixes)
        found.setdefault(str(own) if len(suffixes) > 1 and own.exists() else path, []).append(one)
    return found


def sibling(path: Path, suffix: str, suffixes: Mapping[str, object]) -> Path:
    """The file named like `path` with `suffix` in the place of any other of `suffixes`."""
    stem = path.stem
    for other in suffixes:
        stem = stem.removesuffix(other)
    return path.with_name(f"{stem}{suffix}{path.suffix}")
