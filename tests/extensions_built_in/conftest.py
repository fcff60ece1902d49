"""Trainings of the tiny FLUX that take a fraction of a second, for the tests of the trainer."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

SIZES = [(40, 32), (32, 40), (33, 33), (48, 32), (32, 40), (40, 32)]
CAPTIONS = ["a red circle", "two dogs, detailed", "a photo of a cat, blue, detailed", "a cat", "a red cat, two", ""]


@dataclass(frozen=True)
class Training:
    """A config of the trainer and the folder that it fills."""

    config: dict[str, Any]

    @property
    def name(self) -> str:
        return self.config["config"]["name"]

    @property
    def process(self) -> dict[str, Any]:
        return self.config["config"]["process"][0]

    @property
    def path(self) -> Path:
        return Path(self.process["training_folder"], self.name)

    @property
    def final(self) -> Path:
        return self.path / f"{self.name}.safetensors"

    def step_file(self, step: int) -> Path:
        return self.path / f"{self.name}_{step:09d}.safetensors"

    def but(self, **sections: Any) -> Training:
        """The same run with other values: sections are merged key by key, all else replaces what was there."""
        changed = deepcopy(self.config)
        process = changed["config"]["process"][0]
        for key, value in sections.items():
            both_groups = isinstance(value, Mapping) and isinstance(process.get(key), Mapping)
            process[key] = {**process[key], **value} if both_groups else value
        return Training(changed)

    def run(self) -> Training:
        from jobs import run_job

        run_job(self.config)
        return self

    def written(self) -> str:
        """The config as a file."""
        file = Path(self.process["training_folder"]).parent / f"{self.name}.json"
        file.write_text(json.dumps(self.config), encoding="utf-8")
        return str(file)

    def from_command_line(self, *arguments: str) -> int:
        """Run by the command line; returns the exit code."""
        from toolkit.cli.app import run_command_line

        return run_command_line(["run", self.written(), *arguments])

    def files(self) -> dict[str, bytes]:
        """Everything in the folder of the run."""
        paths = sorted(path for path in self.path.rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.read_bytes() for path in paths}

    def state(self) -> dict[str, Any]:
        """What optimizer.pt holds."""
        from toolkit.training.state import read_state

        return read_state(self.path / "optimizer.pt")

    def weights(self, step: int | None = None) -> dict[str, Any]:
        from safetensors.torch import load_file

        return load_file(self.final if step is None else self.step_file(step))

    def header(self, step: int | None = None) -> dict[str, str]:
        """The metadata of saved weights."""
        from safetensors import safe_open

        with safe_open(self.final if step is None else self.step_file(step), framework="pt") as file:
            return dict(file.metadata())

    def metrics(self) -> list[dict[str, float]]:
        from toolkit.reporting.metrics import read_metrics

        return read_metrics(self.path / "metrics.jsonl")


@pytest.fixture(scope="session")
def noise_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of several sizes that no two crops of are alike; the last has no caption. Do not write to it."""
    folder, rng = tmp_path_factory.mktemp("noise"), Random(0)
    for index, (size, text) in enumerate(zip(SIZES, CAPTIONS, strict=True)):
        Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1])).save(folder / f"{index}.png")
        if text:
            (folder / f"{index}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def quick_gc(tiny_flux: Path) -> None:
    """Take all modules out of the garbage collector's sight: freeing a part of a model collects, as it should."""
    import extensions_built_in.sd_trainer.process  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture
def training(tiny_flux: Path, noise_folder: Path, tmp_path: Path, quick_gc: None) -> Callable[..., Training]:
    """Makes a training by name: a LoRA on two layers, 4 steps, cached, without pictures; keywords change sections."""
    process = {
        "type": "sd_trainer",
        "training_folder": str(tmp_path / "output"),
        "device": "cpu",
        "model": {"arch": "flux", "name_or_path": str(tiny_flux)},
        "network": {"type": "lora", "linear": 2, "network_kwargs": {"only_if_contains": ["attn.to_q"]}},
        "datasets": [{"folder_path": str(noise_folder), "resolution": 32, "cache_latents_to_disk": True}],
        "train": {"steps": 4, "batch_size": 2, "lr": 1e-2, "gradient_checkpointing": False},
        "save": {"dtype": "fp32"},
        "logging": {"log_every": 1},
    }

    def make(name: str = "run", **sections: Any) -> Training:
        return Training({"job": "extension", "config": {"name": name, "process": [process]}}).but(**sections)

    return make


class _Watched(io.TextIOBase):
    """Passes text on, and calls `act` when `awaited` is in it for the first time."""

    def __init__(self, stream: Any, awaited: str, act: Callable[[], None]) -> None:
        self._stream, self._awaited, self._act = stream, awaited, act

    def write(self, text: str) -> int:
        self._stream.write(text)
        if self._awaited and self._awaited in text:
            self._awaited = ""
            self._act()
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def _signal_at(text: str, number: int = signal.SIGINT, times: int = 1) -> Iterator[None]:
    def act() -> None:
        for _ in range(times):
            os.kill(os.getpid(), number)

    with redirect_stdout(_Watched(sys.stdout, text, act)):
        yield


@pytest.fixture
def signal_at() -> Callable[..., Any]:
    """`with signal_at("step 2/")`: this process gets SIGINT, as by ctrl+c, when it prints that text."""
    return _signal_at


def same(one: Any, other: Any) -> bool:
    """Whether two nested values are equal to the last bit."""
    import torch

    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.fixture
def identical() -> Callable[[Any, Any], bool]:
    """Whether two nested values are equal to the last bit."""
    return same
