"""A LoRA-like file in another key format: the same weights under other names, alpha multiplied in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from toolkit.atomic import atomic_path
from toolkit.config.key_names import KeyNames
from toolkit.networks.files import write_weights
from toolkit.networks.keys.codec import Codec
from toolkit.networks.keys.file import read_tensors
from toolkit.networks.keys.guess import denoiser_prefix, layers_in, stems_of
from toolkit.networks.keys.names import TEXT_ENCODERS
from toolkit.networks.keys.suffixes import ADAPTER_CONFIG, split_key


@dataclass(frozen=True)
class Conversion:
    """What was written."""

    layers: int
    kept: tuple[str, ...]
    """Keys of other parts, written as they were found."""


def convert_file(source: Path, target: Path, names: KeyNames, format: str) -> Conversion:
    """Write `source` to `target` in `format`; the header is kept. Raises ValueError if a layer has no name there."""
    tensors, header = read_tensors(source)
    dtype = Counter(tensor.dtype for tensor in tensors.values() if tensor.ndim).most_common(1)[0][0]
    written, kept = convert(tensors, names, format)
    header = {key: value for key, value in header.items() if key != ADAPTER_CONFIG}
    with atomic_path(target) as temporary:
        write_weights(temporary, written, dtype, header | {"key_format": format, "alpha_folded": "true"})
    return Conversion(len(stems_of(tensors)), kept)


def convert(tensors: Mapping[str, Tensor], names: KeyNames, format: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """(tensors in `format`, keys of parts that have no other names). The arithmetic is done in fp32."""
    stems = stems_of(tensors)
    exact = {key: tensor.to(torch.float32) for key, tensor in tensors.items()}
    written: dict[str, Tensor] = {}
    left = set(exact)
    for prefix in (denoiser_prefix(names), *TEXT_ENCODERS):
        codec = Codec(names, prefix, format)
        own = {key for key in exact if codec.names.bare((split_key(key) or (key, ""))[0]) is not None}
        if own:
            native = codec.decode({key: exact[key] for key in exact if key in own}, layers_in(names, prefix, stems))
            written |= codec.encode(native)
            left -= own
    kept = tuple(key for key in tensors if key in left)
    return written | {key: tensors[key] for key in kept}, kept
