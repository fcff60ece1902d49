"""Files of networks: safetensors with the header that readers of LoRAs expect."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from toolkit.networks.keys.hashes import sshs_hashes


def write_weights(
    path: Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None, header: Mapping[str, str]
) -> None:
    """Write `tensors`, numbers in `dtype` (None: as they are), with the header that LoRA readers expect.

    The hashes in it are those of these tensors, whatever `header` says.
    """
    saved = {name: as_saved(tensor, dtype or tensor.dtype) for name, tensor in tensors.items()}
    full = {key: value for key, value in header.items() if not key.startswith("sshs_")} | {"format": "pt"}
    save_file(saved, path, {**full, **sshs_hashes(saved, full)})


def saved_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of numbers that were changed: that of the file, or fp16 where that has 8 bits."""
    return torch.float16 if dtype.is_floating_point and dtype.itemsize == 1 else dtype


def as_saved(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`tensor` in host memory, in `dtype` unless it holds integers or is a single number such as an alpha."""
    keeps = tensor.ndim == 0 or not tensor.is_floating_point()
    return tensor.detach().to("cpu", tensor.dtype if keeps else dtype).contiguous()
