"""Tensors in files: their types and shapes from the headers alone, their values one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.models.weights import open_file
from toolkit.networks.keys.summary import read_file_header

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
}
"""Those of safetensors, in the order in which it sorts them, the last ones first in a file."""
NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAPPED_BYTES = 1 << 28
"""So much of the files is read before they are mapped anew."""
QUANTIZED = (".absmax", ".quant_map", ".qweight", ".scale_weight", ".weight_scale", ".comfy_quant", "._data", "._scale")
"""Ends of names beside weights that are stored in few bits: bitsandbytes, GPTQ, ComfyUI, quanto."""


@dataclass(frozen=True)
class Kind:
    """What a tensor is without its values."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers that can be averaged."""
        return self.dtype in NUMBERS

    def saved(self, dtype: torch.dtype | None) -> Kind:
        """The kind in which it is written; None: as it is."""
        return Kind(dtype, self.shape) if dtype is not None and self.is_number else self


class StoredTensors:
    """The tensors of one or more files. What `read` gives is a view of the mapped file until `close`."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Raises ValueError if one is no file of tensors."""
        self.files = list(files)
        self.kinds: dict[str, Kind] = {}
        self.header: dict[str, str] = {}
        self.by_file: dict[Path, list[str]] = {}
        self._places: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        self._mapped = 0
        for path in self.files:
            kinds = self._kinds_in(path)
            self.by_file[path] = list(kinds)
            self.kinds |= kinds
            self._places |= dict.fromkeys(kinds, path)

    def __contains__(self, name: str) -> bool:
        return name in self.kinds

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def read(self, name: str) -> Tensor:
        """The values of a tensor."""
        path = self._places[name]
        if self._mapped > MAPPED_BYTES:
            # pages of a mapped file count as memory in use until it is unmapped
            self.close()
        if path not in self._open:
            self._open[path] = open_file(path)
        tensor: Tensor = self._open[path].get_tensor(name)
        self._mapped += tensor.nbytes
        return tensor

    def close(self) -> None:
        """Let go of the mapped files; they are opened again when needed."""
        self._open.clear()
        self._mapped = 0

    def _kinds_in(self, path: Path) -> dict[str, Kind]:
        if path.suffix == ".bin":
            handle = open_file(path)
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            return {name: Kind(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        entries, header = read_file_header(path)
        self.header |= header
        unknown = {entry["dtype"] for entry in entries.values()} - DTYPES.keys()
        if unknown:
            raise ValueError(f"{path} holds numbers of the type {', '.join(sorted(unknown))}, which are not read")
        return {name: Kind(DTYPES[entry["dtype"]], tuple(entry["shape"])) for name, entry in entries.items()}


def refuse_quantized(stored: StoredTensors, place: str) -> None:
    """Raise ValueError if weights are stored in few bits: a sum would be rounded to as few again, or be unreadable."""
    few = [
        name
        for name, kind in stored.kinds.items()
        if name.endswith(QUANTIZED) or (name.endswith("weight") and not kind.is_number and len(kind.shape) > 1)
    ]
    if few:
        kind = str(stored.kinds[few[0]].dtype).removeprefix("torch.")
        raise ValueError(
            f"{place} is quantized ({few[0]} is {kind}): what is merged into it would be rounded away; name the "
            "checkpoint in fp32, bf16 or fp16, and quantize what comes out"
        )
