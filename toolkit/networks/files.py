"""Files of networks: safetensors, alpha folded into the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from toolkit.networks.keys.hashes import sshs_hashes


def fold_alpha(down: torch.Tensor, up: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(A, B) with scale = alpha / rank > 0 multiplied in, its root into each: right for readers that know no alpha."""
    return down * scale**0.5, up * scale**0.5


def write_weights(
    path: Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None, header: Mapping[str, str]
) -> None:
    """Write `tensors`, numbers in `dtype` (None: as they are), with the header that LoRA readers expect.

    The hashes in it are those of these tensors, whatever `header` says.
    """
    saved = {name: as_saved(tensor, dtype or tensor.dtype) for name, tensor in tensors.items()}
    full = {key: value for key, value in header.items() if not key.startswith("sshs_")} | {"format": "pt"}
    save_file(saved, path, {**full, **sshs_hashes(saved, full)})


def as_saved(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`tensor` in host memory, in `dtype` unless it holds integers or is a single number such as an alpha."""
    keeps = tensor.ndim == 0 or not tensor.is_floating_point()
    return tensor.detach().to("cpu", tensor.dtype if keeps else dtype).contiguous()
