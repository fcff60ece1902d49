"""What is trained: the contract that the trainer uses for an adapter, a full fine-tune, or several of them alike."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch


class Network(Protocol):
    """Trained parameters, how strongly they act, and how they are written."""

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

    def param_groups(
        self, lr: float, text_lr: float | None = None, plus_ratio: float | None = None
    ) -> list[dict[str, Any]]:
        """The parameters as groups of an optimizer: text encoders learn by `text_lr`, the matrices that start at zero
        (LoRA's B) `plus_ratio` times faster than the rest: LoRA+ (Hayou et al., 2024)."""
        ...

    def scaled(self, multiplier: float) -> AbstractContextManager[None]:
        """Act with `multiplier` times the trained strength inside the block."""
        ...

    def by_file(self) -> Mapping[str, Network]:
        """What goes into each file of a save, by the suffix of its name: {"": self} unless there are experts."""
        ...

    def write(self, path: Path, dtype: torch.dtype, header: Mapping[str, str]) -> None:
        """Write the weights to the file or folder `path`, in `dtype`."""
        ...

    def read(self, path: Path, exact: bool = True) -> list[str]:
        """Continue from weights in any key format; returns what is to be said about them.

        Raises ValueError if they belong to another network. Without `exact` other ranks are converted, and layers
        that the file lacks start anew.
        """
        ...


def lr_of(part: str, lr: float, text_lr: float | None) -> float:
    """The learning rate of a model part: text encoders may have one of their own."""
    return lr if text_lr is None or not part.startswith("text_encoder") else text_lr


def group_params(params: Mapping[str, torch.nn.Parameter], lr: float, plus_ratio: float | None) -> list[dict[str, Any]]:
    """Optimizer groups of one module's parameters; those named `...lora_B.weight` learn at `plus_ratio` x `lr`."""
    if plus_ratio is None:
        return [{"params": list(params.values()), "lr": lr}]
    fast = [param for name, param in params.items() if name.endswith("lora_B.weight")]
    slow = [param for name, param in params.items() if not name.endswith("lora_B.weight")]
    groups = [{"params": slow, "lr": lr}, {"params": fast, "lr": lr * plus_ratio}]
    return [group for group in groups if group["params"]]
