"""Tensors that are made of tensors, as quantized weights are: taken apart, put together, moved and written down.

The libraries' own `.to` may repack a weight for a kernel that has to be compiled first; what is here moves bytes only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

Spec = dict[str, Any] | None
"""How a tensor is put together: None for a plain one, else its class, its other values, and its inner tensors."""


def is_wrapper(tensor: Tensor) -> bool:
    """Whether the tensor is made of other tensors."""
    return hasattr(type(tensor), "__tensor_flatten__")


def leaves(tensor: Tensor) -> Iterator[Tensor]:
    """The plain tensors that a tensor is made of, in a fixed order."""
    if not is_wrapper(tensor):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:  # type: ignore[attr-defined]
        yield from leaves(getattr(tensor, name))


def rebuild(tensor: Tensor, inner: Iterator[Tensor]) -> Tensor:
    """A tensor like `tensor` made of the next plain tensors of `inner`."""
    if not is_wrapper(tensor):
        return next(inner)
    names, context = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    made = {name: rebuild(getattr(tensor, name), inner) for name in names}
    return type(tensor).__tensor_unflatten__(made, context, tensor.size(), tensor.stride())  # type: ignore[attr-defined]


@torch.no_grad()
def move(module: nn.Module, device: torch.device, skip: Set[int] = frozenset()) -> nn.Module:
    """Move parameters and buffers to `device`, but for the parameters with the ids `skip`."""
    for part in module.modules():
        for name, param in part._parameters.items():
            if param is None or param.is_meta or id(param) in skip:
                continue
            if is_wrapper(param):
                inner = (leaf.to(device) for leaf in leaves(param))
                part._parameters[name] = nn.Parameter(rebuild(param, inner), requires_grad=False)
            else:
                param.data = param.data.to(device)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(device)
    return module


def take_apart(name: str, tensor: Tensor, into: dict[str, Tensor]) -> Spec:
    """Put the plain tensors of `tensor` into `into` under names that start with `name`; returns how they fit, as JSON.

    Raises ValueError for a tensor with values that cannot be written.
    """
    if not is_wrapper(tensor):
        into[name] = tensor.detach()
        return None
    names, context = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    inner = {part: take_apart(f"{name}:{part}", getattr(tensor, part), into) for part in names}
    return {
        "class": type(tensor).__name__,
        "context": {key: _encode(value) for key, value in context.items()},
        "size": list(tensor.size()),
        "stride": list(tensor.stride()),
        "inner": inner,
    }


def put_together(name: str, spec: Spec, read: Callable[[str], Tensor], classes: Mapping[str, Any]) -> Tensor:
    """What `take_apart` took apart, from tensors that `read` gives by name."""
    if spec is None:
        return read(name)
    inner = {part: put_together(f"{name}:{part}", below, read, classes) for part, below in spec["inner"].items()}
    context = {key: _decode(value, classes) for key, value in spec["context"].items()}
    size, stride = torch.Size(spec["size"]), tuple(spec["stride"])
    return classes[spec["class"]].__tensor_unflatten__(inner, context, size, stride)


def _encode(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, Enum):
        return {"enum": type(value).__name__, "name": value.name}
    if value is None or isinstance(value, (str, int, float, list)):
        return value
    raise ValueError(f"a weight with a {type(value).__name__} cannot be written")


def _decode(value: Any, classes: Mapping[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    return getattr(torch, value["dtype"]) if "dtype" in value else classes[value["enum"]][value["name"]]
