"""Several networks from files on a model that is not trained, each with a weight, and all of them with a multiplier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolkit.config.key_names import KeyNames
from toolkit.models.family import Family, Trainable
from toolkit.models.source import fingerprint
from toolkit.networks.attached import FrozenNetwork, attach, by_layer, layer_names, network_file
from toolkit.networks.group import sibling


@dataclass(frozen=True)
class Lora:
    """A file, or a Hub name of one, and how strongly it acts."""

    path: str
    weight: float = 1.0


@dataclass(frozen=True)
class Place:
    """What one file holds for one part of the model."""

    lora: Lora
    file: Path
    trainable: Trainable
    num_layers: int


class Loras:
    """Which parts the files belong to, and the networks on those that are loaded."""

    def __init__(self, family: Family, names: KeyNames, loras: Sequence[Lora], notice: Callable[[str], None]) -> None:
        """Reads the files. ValueError for one that is missing, or that holds nothing for this model."""
        self.family, self.names, self.loras = family, names, tuple(loras)
        self.places = [place for number, lora in enumerate(loras) for place in self._find(number, lora)]
        self._attached: list[tuple[Lora, FrozenNetwork]] = []
        self._multiplier = 1.0
        for place in self.places:
            count = f"{place.num_layers} layer{'s' * (place.num_layers != 1)} of {place.trainable.part}"
            notice(f"{place.file.name} x {place.lora.weight:g}: {count}")

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
                module = self.family.parts[place.trainable.part]
                strength = self._multiplier * place.lora.weight
                network = attach(module, place.trainable, self.names, str(place.file), strength)
                self._attached.append((place.lora, network))
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

    def _find(self, number: int, lora: Lora) -> list[Place]:
        """The parts that one file, or for experts the files named like it, belongs to."""
        trainables = self.family.facts.trainables
        places: list[Place] = []
        # text encoders last: names without a prefix are those of a denoiser
        for trainable in sorted(trainables, key=lambda one: one.is_text_encoder):
            try:
                places += self._on(lora, trainable)
            except (ValueError, FileNotFoundError) as error:
                if not (trainable.is_text_encoder and places):
                    raise ValueError(f"loras.{number}.path: {error}") from error
        if not places:
            parts = ", ".join(one.part for one in trainables)
            raise ValueError(f"loras.{number}.path: {lora.path}: none of its layers belongs to {parts}")
        return places

    def _on(self, lora: Lora, trainable: Trainable) -> list[Place]:
        """What a file holds for one part; an empty list for nothing."""
        parts, file = self.family.parts, self._file(lora.path, trainable)
        if file is None or not parts.source.has(trainable.part):
            return []
        layers = layer_names(parts.source.empty(trainable.part, parts.dtype))
        found = by_layer(file, trainable, self.names, layers)
        return [Place(lora, file, trainable, len(found))] if found else []

    def _file(self, path: str, trainable: Trainable) -> Path | None:
        """The file for one expert: that of the expert beside `path`, or `path` unless it is another expert's own."""
        suffixes = dict.fromkeys(one.file for one in self.family.facts.trainables if not one.is_text_encoder)
        given = Path(path).expanduser()
        if len(suffixes) < 2 or trainable.is_text_encoder:
            return network_file(path)
        own = sibling(given, trainable.file, suffixes)
        if own.is_file():
            return own
        if any(suffix and given.stem.endswith(suffix) for suffix in suffixes):
            return None
        return network_file(path)
