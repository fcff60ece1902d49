"""Several networks from files on a model that is not trained, each with a weight, and all of them with a multiplier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from toolkit.config.errors import naming
from toolkit.config.key_names import KeyNames
from toolkit.models.family import Family, Trainable
from toolkit.models.source import fingerprint
from toolkit.networks.attached import FrozenNetwork, Layer, attach_layers, group_layers, layer_names, network_file
from toolkit.networks.group import sibling
from toolkit.networks.keys.file import read_sound
from toolkit.networks.keys.names import of_expert


@dataclass(frozen=True)
class Lora:
    """A file, or a Hub name of one, and how strongly it acts."""

    path: str
    weight: float = 1.0


@dataclass
class Place:
    """What one file holds for one part of the model."""

    key: str
    """Of the config, which names the file."""
    lora: Lora
    file: Path
    trainable: Trainable
    layers: Mapping[str, Layer]
    """Empty once they act on the part, which keeps them where it computes."""


class Loras:
    """Which parts the files belong to, and the networks on those that are loaded."""

    def __init__(self, family: Family, names: KeyNames, loras: Sequence[Lora], notice: Callable[[str], None]) -> None:
        """Reads the files. ValueError for one that is missing, or that holds nothing for this model."""
        self.family, self.names, self.loras = family, names, tuple(loras)
        self.places = [place for number, lora in enumerate(loras) for place in self._find(f"loras.{number}.path", lora)]
        self._attached: list[tuple[Lora, FrozenNetwork]] = []
        self._multiplier = 1.0
        for place in self.places:
            count = len(place.layers)
            layers = f"{count} layer{'s' * (count != 1)} of {place.trainable.part}"
            notice(f"{place.file.name} x {place.lora.weight:g}: {layers}")

    @property
    def digest(self) -> list[str]:
        """What decides how they change a picture: the content of the files, and their weights."""
        return [
            f"{place.trainable.part} {fingerprint(place.file).hex()} x {place.lora.weight}" for place in self.places
        ]

    @property
    def has_text_layers(self) -> bool:
        """Whether they change what the text encoders answer."""
        return any(place.trainable.is_text_encoder for place in self.places)

    @contextmanager
    def attached(self, parts: Iterable[str]) -> Iterator[None]:
        """Inside the block they act on those of the loaded parts that they belong to."""
        wanted, count = set(parts), len(self._attached)
        for place in self.places:
            if place.trainable.part in wanted:
                self._attached.append((place.lora, self._attach(place)))
        try:
            yield
        finally:
            for _, network in self._attached[count:]:
                network.remove()
            del self._attached[count:]

    @contextmanager
    def scaled(self, multiplier: float) -> Iterator[None]:
        """Inside the block every one acts with so many times its weight."""
        kept = self._multiplier
        self._set(multiplier)
        try:
            yield
        finally:
            self._set(kept)

    def _set(self, multiplier: float) -> None:
        self._multiplier = multiplier
        for lora, network in self._attached:
            network.strength = multiplier * lora.weight

    def _attach(self, place: Place) -> FrozenNetwork:
        module, strength = self.family.parts[place.trainable.part], self._multiplier * place.lora.weight
        layers = place.layers or self._group(read_sound(place.file)[0], place.trainable)
        # whoever makes pictures attaches once; until the end of it, they would be in memory twice
        place.layers = {}
        with naming(place.key):
            return attach_layers(module, layers, str(place.file), strength)

    def _group(self, found: Mapping[str, Tensor], trainable: Trainable) -> Mapping[str, Layer]:
        """The layers of a part among the tensors of a file."""
        parts = self.family.parts
        names = layer_names(parts.source.empty(trainable.part, parts.dtype))
        return group_layers(of_expert(found, trainable.part), trainable.prefix, self.names, names)

    def _find(self, key: str, lora: Lora) -> list[Place]:
        """The parts that one file, or for experts the files named like it, belongs to."""
        trainables = self.family.facts.trainables
        places: list[Place] = []
        read: dict[Path, Mapping[str, Tensor]] = {}
        # text encoders last: names without a prefix are those of a denoiser
        for trainable in sorted(trainables, key=lambda one: one.is_text_encoder):
            try:
                file = self._file(lora.path, trainable)
                if file is None or not self.family.parts.source.has(trainable.part):
                    continue
                if file not in read:
                    read[file] = read_sound(file)[0]
                if layers := self._group(read[file], trainable):
                    places.append(Place(key, lora, file, trainable, layers))
            except (ValueError, FileNotFoundError) as error:
                if not (trainable.is_text_encoder and places):
                    raise ValueError(f"{key}: {error}") from error
        if not places:
            parts = ", ".join(one.part for one in trainables)
            raise ValueError(f"{key}: {lora.path}: none of its layers belongs to {parts}")
        return places

    def _file(self, path: str, trainable: Trainable) -> Path | None:
        """The file for one expert: that of the expert beside `path`, or `path` unless it is another expert's own."""
        suffixes = dict.fromkeys(one.file for one in self.family.facts.denoisers)
        given = Path(path).expanduser()
        if len(suffixes) < 2 or trainable.is_text_encoder:
            return network_file(path)
        own = sibling(given, trainable.file, suffixes)
        if own.is_file():
            return own
        if any(suffix and given.stem.endswith(suffix) for suffix in suffixes):
            return None
        return network_file(path)
