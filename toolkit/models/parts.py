"""Parts of a model that are loaded, used and freed one at a time, so that memory peaks one part at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from toolkit.models.source import Source


class Parts:
    """The parts of one checkpoint on one device.

    `dtypes` gives the weights' type per part (other parts: `dtype`); `prepare` may change a part after loading
    (quantize it, switch on gradient checkpointing) before it moves to the device.
    """

    def __init__(
        self,
        source: Source,
        device: torch.device,
        dtype: torch.dtype,
        dtypes: Mapping[str, torch.dtype] | None = None,
        prepare: Mapping[str, Callable[[Any], Any]] | None = None,
    ) -> None:
        self.source = source
        self.device = device
        self.dtype = dtype
        self.dtypes = dict(dtypes or {})
        self.prepare = dict(prepare or {})
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        try:
            return self._loaded[name]
        except KeyError:
            raise RuntimeError(f"{name} is not loaded: use it inside `with parts.using({name!r}):`") from None

    def is_loaded(self, name: str) -> bool:
        """Whether `name` is in memory now."""
        return name in self._loaded

    @contextmanager
    def using(self, *names: str) -> Iterator[Parts]:
        """Load what is not loaded yet, and free just that at the end."""
        added: list[str] = []
        try:
            for name in names:
                if name not in self._loaded:
                    self._loaded[name] = self._load(name)
                    added.append(name)
            yield self
        finally:
            for name in added:
                del self._loaded[name]
            if added:
                free_memory(self.device)

    def _load(self, name: str) -> Any:
        part = self.source.load(name, self.dtypes.get(name, self.dtype))
        if name in self.prepare:
            part = self.prepare[name](part)
        return part.to(self.device) if isinstance(part, torch.nn.Module) else part


def free_memory(device: torch.device) -> None:
    """Return freed memory to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
