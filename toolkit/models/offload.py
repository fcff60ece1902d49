"""Frozen layers that live in CPU memory and are copied to the device just before they compute.

Copies go one way only, as frozen weights do not change. Each layer has a fixed place in a small ring of device buffers;
while one layer computes, the next one (in the backward pass the one before) is copied on a second stream. Outside of
its own forward a layer's parameters are the ones in CPU memory, so that whoever reads them reads the right values.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from toolkit.models.fill import blocks
from toolkit.models.wrapped import leaves, move, rebuild

RING = 2
"""Buffers on the device: one for the layer that computes, one for the next."""
ALIGNMENT = 512


def offload(module: Any, device: torch.device, share: float) -> Any:
    """Keep `share` of the repeated layers of a frozen module in CPU memory, spread evenly, and the rest on `device`."""
    layers = repeated_layers(module)
    chosen = [layers[index] for index in spread(len(layers), share)]
    if not chosen:
        return move(module, device)
    stream = LayerStream(chosen, device)
    move(module, device, skip=stream.host_parameters())
    stream.attach(module)
    return module


def spread(count: int, share: float) -> list[int]:
    """`share` of the indices below `count`, as evenly as can be; always the same ones."""
    number = max(1, round(share * count)) if share > 0 else 0
    return [index for index in range(count) if (index + 1) * number // count > index * number // count]


def repeated_layers(module: Any) -> list[nn.Module]:
    """What is streamed as one: the blocks that the class names as its repeated ones, the innermost of them."""
    names = set(getattr(module, "_repeated_blocks", None) or getattr(module, "_no_split_modules", None) or ())
    found = [part for part in module.modules() if type(part).__name__ in names]
    found = [part for part in found if not any(other in found for other in part.modules() if other is not part)]
    found = found or [block for _, block in blocks(module)]
    return [layer for layer in found if any(True for _ in layer.parameters())]


def compute_device(module: nn.Module) -> torch.device:
    """Where a module computes, which for an offloaded one is not where all of its parameters are."""
    stream = getattr(module, "layer_stream", None)
    return stream.device if isinstance(stream, LayerStream) else next(module.parameters()).device


@dataclass
class Buffer:
    """A place in the ring."""

    memory: Tensor
    holds: int | None = None
    """Index of the layer whose weights are there, or on their way."""
    ready: Any = None
    """CUDA event: the copy has ended."""


class PackedLayer:
    """The parameters of one layer in one piece of CPU memory, and the same parameters as views of a device buffer."""

    def __init__(self, layer: nn.Module, is_pinned: bool) -> None:
        self.places = [
            (part, name) for part in layer.modules() for name, p in part._parameters.items() if p is not None
        ]
        params: list[Any] = [part._parameters[name] for part, name in self.places]
        self.layout = list(_layout(leaf for param in params for leaf in leaves(param)))
        self.host = torch.empty(self.layout[-1].end if self.layout else 0, dtype=torch.uint8)
        if is_pinned:
            _pin(self.host)
        self.on_host = self._views(self.host, params, is_filled=False)
        self.on_device: list[nn.Parameter] = []
        self.swap(self.on_host)

    def bind(self, memory: Tensor) -> None:
        """Make the parameters that compute, in the memory of a ring buffer."""
        self.on_device = self._views(memory, self.on_host)

    def swap(self, params: Sequence[nn.Parameter]) -> None:
        """Put parameters into the layer."""
        for (part, name), param in zip(self.places, params, strict=True):
            part._parameters[name] = param

    def check(self) -> None:
        """Raise ValueError if the layer is trained, which would go unnoticed."""
        if any(param.requires_grad for param in self.on_host):
            raise ValueError(
                "model.layer_offloading: only frozen layers can be offloaded, not those of a full fine-tune"
            )

    def _views(self, memory: Tensor, params: Sequence[Any], is_filled: bool = True) -> list[nn.Parameter]:
        spans, views = iter(self.layout), []
        for param in params:
            inner = []
            for leaf in leaves(param):
                view = next(spans).view(memory)
                inner.append(view if is_filled else view.copy_(leaf))
            # .data: each view counts its own changes, or the next layer's copy would look like an edit of this one
            made = rebuild(param.detach(), iter([view.data for view in inner]))
            views.append(nn.Parameter(made, requires_grad=False))
        return views


@dataclass(frozen=True)
class Span:
    """Where a tensor lies in a piece of memory."""

    start: int
    end: int
    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def view(self, memory: Tensor) -> Tensor:
        """The tensor at its place in `memory`."""
        return memory[self.start : self.end].view(self.dtype).as_strided(self.size, self.stride)


class LayerStream:
    """Brings the weights of some layers to the device in the order in which they compute."""

    def __init__(self, layers: Sequence[nn.Module], device: torch.device) -> None:
        self.device, self.layers = device, list(layers)
        self.is_cuda = device.type == "cuda"
        self.copies = 0
        self.late = 0
        """Copies that a layer had to wait for because nobody had foreseen it."""
        self._packed = [PackedLayer(layer, self.is_cuda) for layer in layers]
        size = max(packed.host.numel() for packed in self._packed)
        self._ring = [
            Buffer(torch.empty(size, dtype=torch.uint8, device=device)) for _ in range(min(RING, len(layers)))
        ]
        self._stream = torch.cuda.Stream(device) if self.is_cuda else None
        for buffer in self._ring:
            if self._stream is not None:
                buffer.memory.record_stream(self._stream)
                buffer.ready = torch.cuda.Event()
        for index, packed in enumerate(self._packed):
            packed.bind(self._buffer(index).memory)
        self._addresses = {buffer.memory.untyped_storage().data_ptr(): buffer for buffer in self._ring}
        self._saving: list[ExitStack] = []

    @property
    def live(self) -> list[int]:
        """Indices of the layers whose weights are on the device."""
        return [buffer.holds for buffer in self._ring if buffer.holds is not None]

    @property
    def device_bytes(self) -> int:
        """What the ring takes on the device."""
        return sum(buffer.memory.nbytes for buffer in self._ring)

    def host_parameters(self) -> set[int]:
        """The ids of the parameters that stay in CPU memory."""
        return {id(param) for packed in self._packed for param in packed.on_host}

    def attach(self, module: Any) -> None:
        """Act whenever `module`, which holds the layers, computes."""
        module.layer_stream = self
        module.register_forward_pre_hook(lambda *_: self._begin())
        module.register_forward_hook(lambda *_: self._end(), always_call=True)
        for index, layer in enumerate(self.layers):
            layer.register_forward_pre_hook(lambda *_, index=index: self._enter(index))
            layer.register_forward_hook(lambda *_, index=index: self._leave(index), always_call=True)

    def _begin(self) -> None:
        """Until the end of the forward, remember which layer a tensor that autograd keeps belongs to."""
        for packed in self._packed:
            packed.check()
        stack = ExitStack()
        if torch.is_grad_enabled():
            stack.enter_context(saved_tensors_hooks(self._pack, self._unpack))
        self._saving.append(stack)

    def _end(self) -> None:
        if self._saving:
            self._saving.pop().close()

    def _enter(self, index: int) -> None:
        self._fetch(index)
        self._packed[index].swap(self._packed[index].on_device)
        self._prefetch(index)

    def _leave(self, index: int) -> None:
        self._packed[index].swap(self._packed[index].on_host)

    def _pack(self, tensor: Tensor) -> tuple[int | None, Tensor]:
        """A view of the ring is kept together with its layer: when it is wanted again, the ring has moved on."""
        for leaf in leaves(tensor):
            buffer = self._addresses.get(leaf.untyped_storage().data_ptr())
            if buffer is not None:
                return buffer.holds, tensor
        return None, tensor

    def _unpack(self, kept: tuple[int | None, Tensor]) -> Tensor:
        index, tensor = kept
        if index is not None:
            self._fetch(index)
            self._prefetch(index)
        return tensor

    def _prefetch(self, index: int) -> None:
        """Start the copy of the layer that computes after `index`, in the direction of the pass."""
        if len(self._ring) < RING:
            return
        is_backward = torch._C._current_graph_task_id() != -1
        following = index - 1 if is_backward else index + 1
        if following == len(self._packed) and not torch.is_grad_enabled():
            following = 0  # sampling goes round and round
        if not 0 <= following < len(self._packed):
            return
        buffer = self._buffer(following)
        # an odd number of layers meets itself when it goes round
        if buffer.holds != following and buffer is not self._buffer(index):
            self._copy(following)

    def _fetch(self, index: int) -> None:
        """Have the weights of a layer in its buffer before what is enqueued next."""
        buffer = self._buffer(index)
        if buffer.holds != index:
            self.late += 1
            self._copy(index)
        if self._stream is not None:
            torch.cuda.current_stream(self.device).wait_event(buffer.ready)

    def _copy(self, index: int) -> None:
        buffer, packed = self._buffer(index), self._packed[index]
        target = buffer.memory[: packed.host.numel()]
        buffer.holds = index
        self.copies += 1
        if self._stream is None:
            target.copy_(packed.host)
            return
        # what is enqueued so far includes the last use of the buffer, and nothing of the layer that computes next
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            target.copy_(packed.host, non_blocking=True)
            buffer.ready.record(self._stream)

    def _buffer(self, index: int) -> Buffer:
        return self._ring[index % len(self._ring)]


def _layout(tensors: Iterator[Tensor]) -> Iterator[Span]:
    """Places one after the other, aligned; strides are kept."""
    start = 0
    for tensor in tensors:
        extent = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
        end = start + (extent if tensor.numel() else 0) * tensor.element_size()
        yield Span(start, end, tensor.size(), tensor.stride(), tensor.dtype)
        start = -(-end // ALIGNMENT) * ALIGNMENT


def _pin(memory: Tensor) -> None:
    """Lock memory, so that copies run beside computation; torch's own pinned memory is rounded up to powers of 2."""
    error = torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)
    if int(error) != 0:
        warnings.warn(
            f"{memory.nbytes / 1e6:.0f} MB cannot be locked (error {int(error)}): copies are slow", stacklevel=2
        )
        return
    weakref.finalize(memory, _unpin, memory.data_ptr())


def _unpin(address: int) -> None:
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaHostUnregister(address)
