"""LoRA-like files read into layers under native names, for all modules of a family, and written back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from toolkit.atomic import atomic_path
from toolkit.config.errors import naming
from toolkit.config.key_names import KeyNames
from toolkit.networks.files import write_weights
from toolkit.networks.keys.codec import Codec
from toolkit.networks.keys.convert import decode_all
from toolkit.networks.keys.file import read_sound
from toolkit.networks.keys.names import of_expert
from toolkit.networks.keys.suffixes import DOWN, UP, network_type
from toolkit.weights.stored import StoredTensors

Name = tuple[str, str]
"""(prefix of the module, layer)."""
Layers = dict[Name, dict[str, Tensor]]


@dataclass(frozen=True)
class NetworkFile:
    """A file of any key format; alphas are multiplied in."""

    path: Path
    header: Mapping[str, str]
    layers: Layers
    left: tuple[str, ...]
    """Keys of parts that the family's names do not know."""


def read_network(path: Path, names: KeyNames, part: str | None = None) -> NetworkFile:
    """The file in fp32. Raises ValueError if it is no network of this family, or two and no part is named."""
    tensors, header = read_sound(path)
    with naming(str(path)):
        modules, left = decode_all(of_expert(tensors, part), names)
    layers = {
        (prefix, layer): own
        for prefix, native in modules.items()
        for layer, own in Codec(names, prefix).by_layer(native).items()
    }
    return NetworkFile(path, header, layers, left)


def read_whole(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, header) as they are stored. Raises ValueError if it is no file of tensors."""
    stored = StoredTensors([path])
    tensors = {name: stored.read(name).clone() for name in stored}
    stored.close()
    return tensors, dict(stored.header)


def encode(layers: Layers, names: KeyNames, format: str) -> dict[str, Tensor]:
    """The layers under the names of a key format."""
    written: dict[str, Tensor] = {}
    for prefix in dict.fromkeys(prefix for prefix, _ in layers):
        native = {
            f"{prefix}{layer}.{suffix}": tensor
            for (own, layer), tensors in layers.items()
            if own == prefix
            for suffix, tensor in tensors.items()
        }
        written |= Codec(names, prefix, format).encode(native)
    return written


def save_network(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str], dtype: torch.dtype | None
) -> None:
    """Write a file atomically, numbers in `dtype` (None: as they are), with the hashes of its tensors."""
    with atomic_path(path) as temporary:
        write_weights(temporary, tensors, dtype, header)


def ranks_of(layers: Layers) -> list[int]:
    """The rank of every layer that is a product."""
    return [len(tensors[DOWN]) for tensors in layers.values() if DOWN in tensors]


def shape_of(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The shape of the weight that a product or a full difference changes."""
    if DOWN in tensors:
        return (len(tensors[UP]), *tensors[DOWN].shape[1:])
    return tuple(tensors["diff"].shape)


def kind_of(tensors: Mapping[str, Tensor]) -> str:
    """lora, dora, lokr, loha or full."""
    return network_type(set(tensors))
