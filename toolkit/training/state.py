"""Everything that an exact continuation needs, in one file beside the weights."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from toolkit.atomic import atomic_path
from toolkit.data.course import Course
from toolkit.data.loader import Position
from toolkit.networks.network import Network
from toolkit.networks.shared import like, state_like, whole, whole_state
from toolkit.training.ema import Ema

FORMAT = 2
MOVING = {"params", "k", "d", "d0", "d_max", "d_numerator"}
"""What optimizers (Prodigy) keep in their groups although it changes while training."""


class StateError(Exception):
    """A state file that cannot be used, with the reason."""


@dataclass
class TrainState:
    """The moving parts of a run. Random numbers of samples follow from the position (see `noise`)."""

    network: Network
    optimizer: torch.optim.Optimizer
    ema: Ema | None = None
    scaler: torch.amp.GradScaler | None = None
    step: int = 0
    """Optimizer updates done."""
    position: Position = field(default_factory=lambda: Position(0, 0))
    """Where the data order goes on."""
    course: Course = field(default_factory=Course)
    """How large batches were, which the data order follows from."""
    is_whole: bool = True
    """False while an update is under way: what is in memory is then no state of the run."""

    @property
    def params(self) -> list[torch.nn.Parameter]:
        """The trained parameters, in the optimizer's order."""
        return list(self.network.params.values())

    def save(self, path: Path) -> None:
        """Write the state atomically."""
        content = {
            "aitk_state": FORMAT,
            "step": self.step,
            "position": (self.position.epoch, self.position.index),
            "course": self.course.to_list(),
            "params": {name: whole(param) for name, param in self.network.params.items()},
            "optimizer_class": type(self.optimizer).__name__,
            "optimizer": whole_state(self.optimizer.state_dict()),
            "ema": self.ema.state_dict() if self.ema else None,
            "scaler": self.scaler.state_dict() if self.scaler else None,
            # only dropout inside the network draws from torch's own generators
            "rng": (torch.get_rng_state(), torch.cuda.get_rng_state_all()),
        }
        # through a file of Python's, whose error says that the disk is full; torch's own does not
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)

    def restore(self, content: Mapping[str, Any]) -> None:
        """Continue from what `read_state` returned. Raises StateError if it belongs to another network or optimizer."""
        saved, mine = content["params"], self.network.params
        if {name: tuple(t.shape) for name, t in saved.items()} != {name: tuple(p.shape) for name, p in mine.items()}:
            raise StateError("it was saved with another network (other layers or another rank)")
        kind = type(self.optimizer).__name__
        if content.get("optimizer_class", kind) != kind:
            raise StateError(f"it was saved with another optimizer, {content['optimizer_class']}")
        if [len(group["params"]) for group in content["optimizer"]["param_groups"]] != [
            len(group["params"]) for group in self.optimizer.param_groups
        ]:
            raise StateError("it was saved with other groups of learning rates")
        with torch.no_grad():
            for name, param in mine.items():
                param.copy_(like(saved[name], param))
        load_optimizer(self.optimizer, content["optimizer"])
        if self.ema and content["ema"]:
            self.ema.load_state_dict(content["ema"])
        elif self.ema:
            self.ema.restart(self.params)
        if self.scaler and content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["rng"][0])
        if len(content["rng"][1]) == torch.cuda.device_count() > 0:
            torch.cuda.set_rng_state_all(content["rng"][1])
        self.step = content["step"]
        self.position = Position(*content["position"])
        self.course = Course.from_list(content.get("course", []))


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load the moments but keep the options of the config, which may have been edited since the run was stopped."""
    options = [dict(group) for group in optimizer.param_groups]
    params = [param for group in optimizer.param_groups for param in group["params"]]
    optimizer.load_state_dict(state_like(saved, params))
    for group, chosen in zip(optimizer.param_groups, options, strict=True):
        group.update({key: value for key, value in chosen.items() if key not in MOVING})


def read_state(path: Path) -> dict[str, Any]:
    """The content of a state file. Raises StateError if it is damaged or was not written by aitk."""
    try:
        # torch.load does not compare checksums
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            raise zipfile.BadZipFile(f"bad checksum of {broken}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise StateError(f"it is damaged ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or content.get("aitk_state") != FORMAT:
        raise StateError("it was not written by this version of aitk")
    return content
