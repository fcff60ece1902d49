"""A LoRA-like file in another key format: the same weights under other names, alpha multiplied in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from toolkit.atomic import atomic_path
from toolkit.config.errors import naming
from toolkit.config.key_names import KeyNames
from toolkit.networks.files import saved_dtype, write_weights
from toolkit.networks.keys.codec import Codec
from toolkit.networks.keys.file import read_sound
from toolkit.networks.keys.guess import denoiser_prefix, layers_in, stems_of
from toolkit.networks.keys.names import TEXT_ENCODERS, of_expert
from toolkit.networks.keys.suffixes import ADAPTER_CONFIG, split_key


@dataclass(frozen=True)
class Conversion:
    """What was written."""

    layers: int
    kept: tuple[str, ...]
    """Keys of other parts, written as they were found."""


def convert_file(source: Path, target: Path, names: KeyNames, format: str, part: str | None = None) -> Conversion:
    """Write `source` to `target` in `format`; the header is kept. Raises ValueError if a layer has no name there.

    Numbers of 8 bits become fp16, because alpha is multiplied in.
    """
    tensors, header = read_sound(source)
    with naming(str(source)):
        tensors = of_expert(tensors, part)
        written, kept = convert(tensors, names, format)
    dtype = Counter(tensor.dtype for tensor in tensors.values() if tensor.ndim).most_common(1)[0][0]
    header = {key: value for key, value in header.items() if key != ADAPTER_CONFIG}
    with atomic_path(target) as temporary:
        write_weights(temporary, written, saved_dtype(dtype), header | {"key_format": format, "alpha_folded": "true"})
    return Conversion(len(stems_of(tensors)), kept)


def convert(tensors: Mapping[str, Tensor], names: KeyNames, format: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """(tensors in `format`, keys of parts that have no other names). The arithmetic is done in fp32."""
    modules, kept = decode_all(tensors, names)
    written: dict[str, Tensor] = {}
    for prefix, native in modules.items():
        written |= Codec(names, prefix, format).encode(native)
    return written | {key: tensors[key] for key in kept}, kept


def decode_all(tensors: Mapping[str, Tensor], names: KeyNames) -> tuple[dict[str, dict[str, Tensor]], tuple[str, ...]]:
    """(prefix of a module -> its native tensors in fp32, keys of parts that the names do not know).

    Raises ValueError if these are no layers of this family.
    """
    stems = stems_of(tensors)
    modules: dict[str, dict[str, Tensor]] = {}
    left = list(tensors)
    for prefix in (denoiser_prefix(names), *TEXT_ENCODERS):
        codec = Codec(names, prefix)
        own = [key for key in left if codec.names.bare((split_key(key) or (key, ""))[0]) is not None]
        if own:
            exact = {key: tensors[key].float() for key in own}
            modules[prefix] = codec.decode(exact, layers_in(names, prefix, stems))
            left = [key for key in left if key not in exact]
    if not modules:
        raise ValueError("no layer of a network is in it; is it a whole model?")
    return modules, tuple(left)
