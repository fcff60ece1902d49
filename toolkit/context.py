"""Where a run computes: device, precision, rank and seed, built once and passed on. Only this file knows accelerate."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Context:
    """The machine as one process of a run sees it."""

    device: torch.device
    dtype: torch.dtype
    """Precision of frozen weights and of the computation; what is trained stays in fp32."""
    seed: int
    rank: int = 0
    world: int = 1
    cache: Path | None = None
    """Folder for what may be used again by other runs; None: nothing is kept."""

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in `dtype` although trained weights are fp32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def make_context(device: str, dtype: str, seed: int) -> Context:
    """The context of this process.

    `device` is "auto", or a torch device such as "cuda:1"; one that this machine lacks is a ValueError.
    """
    from accelerate import PartialState

    chosen = _best_device() if device == "auto" else torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device: {device} was asked for, but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA "
            "devices; use `device: auto`, or install a CUDA build of torch (see `aitk doctor`)"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device: {device} was asked for, but torch {torch.__version__} sees no Apple GPU")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    state = PartialState(cpu=chosen.type == "cpu")
    return Context(chosen, DTYPES[dtype], seed, state.process_index, state.num_processes)


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
