"""LoRA files: diffusers names in safetensors, alpha folded into the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file


def fold_alpha(down: torch.Tensor, up: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(A, B) with scale = alpha / rank > 0 multiplied in, its root into each: right for readers that know no alpha."""
    return down * scale**0.5, up * scale**0.5


def write_weights(
    path: Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, header: Mapping[str, str]
) -> None:
    """Write `tensors` in `dtype` with the header that LoRA readers expect, its hash included."""
    saved = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    save_file(saved, path, {**header, "format": "pt", "sshs_model_hash": weights_hash(saved)})


def weights_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names and bytes in order of name; equal weights have equal hashes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
