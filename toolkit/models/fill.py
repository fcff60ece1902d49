"""A module made without memory, and filled block by block with the tensors of a checkpoint.

The whole of it is never in memory twice: `settle` is called as soon as a block is filled, and may merge into it,
quantize it and move it away before the next one is read.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.models.memory import trim_heap

Settle = Callable[[str, nn.Module], None]
"""Called with each filled block and its name; at the end with "" and the whole module."""


def empty_module(make: Callable[[], nn.Module], dtype: torch.dtype) -> nn.Module:
    """What `make` makes, with weights on the meta device and buffers in memory."""
    from accelerate import init_empty_weights
    from transformers.initialization import no_init_weights

    kept = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights(), init_empty_weights(include_buffers=False):
            return make()
    finally:
        torch.set_default_dtype(kept)


def fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    *,
    settle: Settle = lambda name, block: None,
    close: Callable[[], None] = lambda: None,
) -> nn.Module:
    """Copy `tensors`, named as in `module`, into it; frozen, floats in `dtype` but for what the class keeps in fp32.

    `close` is called after every block. Tied weights may be missing. Raises ValueError that names what does not fit.
    """
    kept = _kept_in_fp32(module, dtype)
    wanted = dict(module.state_dict(keep_vars=True))
    is_ours = _is_diffusers(module)
    done: set[str] = set()
    for prefix, block in [*blocks(module), ("", module)]:
        for name in block.state_dict(prefix=f"{prefix}." if prefix else ""):
            if name in done or name not in tensors:
                continue
            place = wanted[name]
            target = (dtype if is_ours else place.dtype) if place.is_floating_point() else place.dtype
            target = torch.float32 if place.is_floating_point() and kept(name) else target
            _put(module, name, _copied(name, tensors[name], place, target))
            done.add(name)
        if prefix:
            settle(prefix, block)
        close()
        trim_heap()
    tie(module)
    if left := [name for name, tensor in module.state_dict(keep_vars=True).items() if tensor.is_meta]:
        raise ValueError(f"{type(module).__name__}: {len(left)} tensors are missing, e.g. {', '.join(left[:5])}")
    settle("", module)
    return module


def blocks(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """(name, block) of the repeated blocks and other compound children; single layers in and out are none."""
    for name, child in module.named_children():
        name = f"{prefix}{name}"
        if isinstance(child, nn.ModuleList):
            # a list may hold None in place of a layer
            entries = ((f"{name}.{index}", block) for index, block in enumerate(child) if block is not None)
            yield from (entry for entry in entries if any(True for _ in entry[1].children()))
        elif any(isinstance(part, nn.ModuleList) for part in child.modules()):
            yield from blocks(child, f"{name}.")
        elif any(True for _ in child.children()):
            yield name, child


def names_in_file(module: Any, names: Collection[str]) -> dict[str, str] | None:
    """Name in `module` -> name in a checkpoint that its library wrote; None if tensors have to be converted."""
    wanted = module.state_dict()
    if _is_diffusers(module):
        older = _older_attention_names(module)
        return {name: found for name in wanted for found in (name, older.get(name, "")) if found in names}
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    rules = get_model_conversion_mapping(module)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    found: dict[str, str] = {}
    for name in names:
        options = (module.base_model_prefix, wanted)
        target, converted = rename_source_key(name, renamings, converters, *options)
        if target not in wanted and name in wanted:
            target, converted = rename_source_key(name, [], [], *options)
        if converted is not None and target in wanted:
            return None
        if target in wanted:
            found[target] = name
    return found


def check_names(module: Any, found: Collection[str], extra: Collection[str], origin: str) -> None:
    """Raise ValueError if `origin` lacks tensors of `module`, and warn of `extra` ones that it does not take."""
    missing = missing_names(module, found)
    extra = [name for name in extra if not _matches(name, module, "_keys_to_ignore_on_load_unexpected")]
    rest = f"; {len(extra)} others are not taken, e.g. {', '.join(sorted(extra)[:3])}" if extra else ""
    if missing:
        raise ValueError(
            f"{origin} does not fit {type(module).__name__}: {len(missing)} tensors are missing, e.g. "
            f"{', '.join(missing[:3])}{rest}"
        )
    if extra and _is_diffusers(module):
        warnings.warn(
            f"{origin}: {type(module).__name__} has no place for {', '.join(sorted(extra)[:3])}", stacklevel=2
        )


def missing_names(module: Any, found: Collection[str]) -> list[str]:
    """Tensors of `module` that are neither among `found` nor tied to another one."""
    tied = set(getattr(module, "all_tied_weights_keys", None) or ())
    names = [name for name in module.state_dict() if name not in found and name not in tied]
    return [name for name in names if not _matches(name, module, "_keys_to_ignore_on_load_missing")]


def tie(module: Any) -> None:
    """Share what the library shares, from the side that the checkpoint has."""
    if hasattr(module, "all_tied_weights_keys"):
        missing = {name for name, tensor in module.state_dict(keep_vars=True).items() if tensor.is_meta}
        module.tie_weights(missing_keys=missing, recompute_mapping=False)
    elif hasattr(module, "tie_weights"):
        module.tie_weights()


def _matches(name: str, module: Any, attribute: str) -> bool:
    return any(re.search(pattern, name) for pattern in getattr(module, attribute, None) or ())


def _is_diffusers(module: Any) -> bool:
    return type(module).__module__.startswith("diffusers.") or not hasattr(module, "base_model_prefix")


def _kept_in_fp32(module: Any, dtype: torch.dtype) -> Callable[[str], bool]:
    """The rule of both libraries for layers that lose too much in few bits."""
    parts = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    if not _is_diffusers(module):
        parts = parts if dtype == torch.float16 else set()
        if dtype in (torch.float16, torch.bfloat16):
            parts |= set(getattr(module, "_keep_in_fp32_modules_strict", None) or ())
    return lambda name: not parts.isdisjoint(name.split("."))


def _copied(name: str, tensor: Tensor, place: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.shape != place.shape:
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, expected {tuple(place.shape)}")
    return tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    else:
        owner._buffers[leaf] = tensor


def _older_attention_names(module: nn.Module) -> dict[str, str]:
    """Name -> name before diffusers renamed the attention of VAEs, which old checkpoints have."""
    pairs = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    older = [name for name, part in module.named_modules() if getattr(part, "_from_deprecated_attn_block", False)]
    return {
        f"{name}.{new}.{leaf}": f"{name}.{old}.{leaf}"
        for name in older
        for new, old in pairs.items()
        for leaf in ("weight", "bias")
    }
