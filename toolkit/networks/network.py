"""What is trained: the contract that the trainer uses for an adapter and for a full fine-tune alike."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch


class Network(Protocol):
    """Trained parameters of a module, how strongly they act, and how they are written."""

    @property
    def params(self) -> Mapping[str, torch.nn.Parameter]:
        """Trained parameters, fp32, by the name under which a resume finds them."""
        ...

    @property
    def suffix(self) -> str:
        """Ending of a saved file's name; "" for a folder."""
        ...

    @property
    def header(self) -> Mapping[str, str]:
        """What a saved file's header says about the network."""
        ...

    def describe(self) -> list[str]:
        """Lines for the start of the run: what is trained."""
        ...

    def scaled(self, multiplier: float) -> AbstractContextManager[None]:
        """Act with `multiplier` times the trained strength inside the block."""
        ...

    def write(self, path: Path, dtype: torch.dtype, header: Mapping[str, str]) -> None:
        """Write the weights to the file or folder `path`, in `dtype`."""
        ...

    def read(self, path: Path) -> None:
        """Continue from weights that `write` wrote. Raises ValueError if they belong to another network."""
        ...
