"""The smallest thing that can be trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from toolkit.training.state import TrainState


class Line:
    """A network of one vector."""

    suffix = ".safetensors"
    header: Mapping[str, str] = {}

    def __init__(self, size: int) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(size))
        self.params: Mapping[str, torch.nn.Parameter] = {"weight": self.weight}

    def describe(self) -> list[str]:
        return []

    @contextmanager
    def scaled(self, multiplier: float) -> Iterator[None]:
        yield

    def by_file(self) -> Mapping[str, Line]:
        return {"": self}

    def write(self, path: Path, dtype: torch.dtype, header: Mapping[str, str]) -> None:
        save_file({"weight": self.weight.detach().to(dtype)}, path, dict(header))

    def param_groups(
        self, lr: float, text_lr: float | None = None, plus_ratio: float | None = None
    ) -> list[dict[str, Any]]:
        return [{"params": [self.weight], "lr": lr}]

    def read(self, path: Path, exact: bool = True) -> list[str]:
        with torch.no_grad():
            self.weight.copy_(load_file(path)["weight"])
        return []


@pytest.fixture
def line() -> Callable[..., TrainState]:
    """Makes the state of a run that trains a vector: `line(size, optimizer=torch.optim.SGD, lr=1.0)`."""

    def make(
        size: int = 1, optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD, lr: float = 1.0
    ) -> TrainState:
        network = Line(size)
        return TrainState(network, optimizer([network.weight], lr=lr))

    return make
