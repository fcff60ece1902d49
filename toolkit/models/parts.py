"""Parts of a model that are loaded, used and freed one at a time, so that memory peaks one part at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from toolkit.models.memory import free_memory
from toolkit.models.offload import offload
from toolkit.models.quantize import Quantization
from toolkit.models.quantized_cache import QuantizedCache
from toolkit.models.source import Source
from toolkit.models.wrapped import move


class Edit(Protocol):
    """A change of a part's weights while it is loaded, such as merging a LoRA into them."""

    digest: str
    """Changes when the edit does: part of the key under which quantized weights are kept."""

    def apply(self, prefix: str, block: torch.nn.Module) -> None:
        """Change the layers of a block, before it is quantized; at the end ("", module) for the layers outside."""
        ...


@dataclass(frozen=True)
class Plan:
    """What is done to one part when it is loaded, in this order."""

    quantization: Quantization | None = None
    prepare: Callable[[Any], Any] = lambda part: part
    """Changes the part, which may be quantized already."""
    offload: float = 0.0
    """Share of its repeated layers that stay in CPU memory."""
    finish: Callable[[Any], Any] = lambda part: part
    """Called with the part in its place."""


class Parts:
    """The parts of one checkpoint on one device.

    `dtypes` gives the weights' type per part (other parts: `dtype`); `plans`, what else is done to them. `edits` may
    be set as long as a part is not loaded.
    """

    def __init__(
        self,
        source: Source,
        device: torch.device,
        dtype: torch.dtype,
        dtypes: Mapping[str, torch.dtype] | None = None,
        plans: Mapping[str, Plan] | None = None,
        cache: QuantizedCache | None = None,
    ) -> None:
        self.source = source
        self.device = device
        self.dtype = dtype
        self.dtypes = dict(dtypes or {})
        self.plans = dict(plans or {})
        self.edits: dict[str, Edit] = {}
        self.cache = cache
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
        plan = self.plans.get(name, Plan())
        place = torch.device("cpu") if plan.offload else self.device
        dtype, edit = self.dtypes.get(name, self.dtype), self.edits.get(name)
        if plan.quantization is not None:
            part = self._load_quantized(name, dtype, plan.quantization, place)
        else:

            def settle(prefix: str, block: torch.nn.Module) -> None:
                if edit is not None:
                    edit.apply(prefix, block)
                move(block, place)

            part = self.source.load(name, dtype, settle)
        if not isinstance(part, torch.nn.Module):
            return part
        part = plan.prepare(part)
        part = offload(part, self.device, plan.offload) if plan.offload else move(part, self.device)
        return plan.finish(part)

    def _load_quantized(self, name: str, dtype: torch.dtype, how: Quantization, place: torch.device) -> Any:
        """The part with quantized weights, from the cache if they are there, else block by block from the source."""
        if not self.source.has(name):
            return self.source.load(name, dtype)
        edit, folder = self.edits.get(name), None
        if self.cache is not None:
            folder = self.cache.place(
                weights=self.source.identity(name),
                qtype=how.qtype,
                exclude=sorted(how.exclude),
                dtype=str(dtype),
                edit=edit.digest if edit is not None else "",
                versions=how.versions,
            )
            module = self.source.empty(name, dtype)
            if self.cache.read(folder, module, how.qtype, place):
                return module.requires_grad_(False)
        keeping = self.cache.writing(folder) if self.cache is not None and folder is not None else nullcontext()
        with keeping as writer:

            def settle(prefix: str, block: torch.nn.Module) -> None:
                if edit is not None:
                    edit.apply(prefix, block)
                if prefix:
                    how.apply(prefix, block)
                move(block, place)
                if writer is not None:
                    writer.add(prefix, block)

            return self.source.load(name, dtype, settle)
