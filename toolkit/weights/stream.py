"""A safetensors file written tensor by tensor, so that memory holds one of them at a time."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.weights.stored import DTYPES, Kind

ALIGNMENT = 8
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ORDER = {dtype: number for number, dtype in enumerate(DTYPES.values())}


def write_stream(
    path: Path, kinds: Mapping[str, Kind], tensor_of: Callable[[str], Tensor], header: Mapping[str, str]
) -> None:
    """Write `tensor_of(name)`, which must be of `kinds[name]`, for every name; wide types first, then by name."""
    names = sorted(kinds, key=lambda name: (-_ORDER[kinds[name].dtype], name))
    entries: dict[str, object] = {"__metadata__": {**header, "format": "pt"}}
    end = 0
    for name in names:
        kind, begin = kinds[name], end
        end += prod(kind.shape) * kind.dtype.itemsize
        entries[name] = {"dtype": _NAMES[kind.dtype], "shape": list(kind.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            tensor = tensor_of(name)
            assert (tensor.dtype, tuple(tensor.shape)) == (kinds[name].dtype, kinds[name].shape), name
            file.write(_bytes_of(tensor))


def _bytes_of(tensor: Tensor) -> Any:
    """The bytes of a tensor, without a copy of them."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
