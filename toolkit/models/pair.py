"""Two checkpoints of one architecture side by side: a base and what was made of it, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from toolkit.models.hub import Root, is_single_file, single_file
from toolkit.models.original import holds
from toolkit.models.source import Source

PACKED = {"F8_E4M3", "F8_E5M2", "F4", "I8", "U8", "F8_E8M0"}
"""Types of quantized weights in safetensors files."""


@dataclass(frozen=True)
class Pair:
    """One part of two checkpoints; a tensor is read when it is asked for."""

    module: nn.Module
    """Without memory."""
    base: Mapping[str, Tensor]
    tuned: Mapping[str, Tensor]
    close: Callable[[], None]
    """Lets go of the files, which are opened again when needed."""

    @property
    def names(self) -> list[str]:
        """The tensors that both have, in the module's order."""
        return [name for name in self.module.state_dict() if name in self.base and name in self.tuned]

    def difference(self, name: str, device: torch.device) -> Tensor | None:
        """What was added to the base, fp32 on `device`; None if nothing. Raises ValueError if the shapes differ."""
        base, tuned = self.base[name], self.tuned[name]
        if base.shape != tuned.shape:
            raise ValueError(
                f"{name} is {list(base.shape)} in the base and {list(tuned.shape)} in the other checkpoint: they are "
                "two architectures, which have no difference"
            )
        if not base.is_floating_point():
            return None
        # rounded as the other one is: else the rounding of a file in half precision would be taken for training
        rounded = base.to(device).to(tuned.dtype)
        moved = tuned.to(device)
        if torch.equal(rounded, moved):
            return None
        return moved.to(torch.float32, copy=True).sub_(rounded)


def open_pair(base: Source, tuned: Source, part: str) -> Pair:
    """`part` of both. Raises ValueError if they are two architectures, or if one of them is quantized."""
    for source in (base, tuned):
        _refuse_packed(source, part)
    module, ours, close_ours = base.open(part)
    other, theirs, close_theirs = tuned.open(part)
    if type(module) is not type(other):
        raise ValueError(
            f"{part} is a {type(module).__name__} in {base.location} and a {type(other).__name__} in "
            f"{tuned.location}: they are two architectures, which have no difference"
        )
    if ours is None or theirs is None:
        raise ValueError(f"{part}: transformers puts its tensors together while it loads them; this is not compared")
    missing = sorted(({*ours} ^ {*theirs}) & {*module.state_dict(), *other.state_dict()})
    if missing:
        raise ValueError(
            f"{part}: {len(missing)} tensors are in one checkpoint only, e.g. {missing[0]}: they are two architectures"
        )

    def close() -> None:
        close_ours()
        close_theirs()

    return Pair(module, ours, theirs, close)


def tuned_source(base: Source, name: str, parts: Sequence[str]) -> tuple[Source, list[str]]:
    """(the checkpoint `name` as a source, which of `parts` it holds).

    `name` is a diffusers folder, a Hub repository, a folder of single parts such as a full fine-tune of aitk, the
    folder of the first part itself, or a single file. What it lacks, configurations included, is that of `base`.
    """
    if is_single_file(name):
        path = single_file(name)
        held = [part for part in parts if part == parts[0] or holds(path, part, base.empty(part, torch.float32))]
        kept = {part: place for part, place in base.overrides.items() if part not in held}
        return replace(base, checkpoint=name, overrides=kept), held
    root = Root(name)
    if root.find(["model_index.json"]) is not None:
        whole = Source(name, classes=base.classes)
        return whole, [part for part in parts if whole.has(part)]
    held = [part for part in parts if root.find([f"{part}/config.json"]) is not None]
    if not held and root.find(["config.json"]) is not None:
        held = [parts[0]]
    if not held:
        raise ValueError(f"{name} holds none of {', '.join(parts)}, and no model_index.json")
    return replace(base, overrides={**base.overrides, **dict.fromkeys(held, name)}), held


def _refuse_packed(source: Source, part: str) -> None:
    """A difference to rounded weights is mostly their rounding."""
    reason = "a difference of quantized weights is mostly their rounding; use the checkpoint that it was made of"
    config: dict[str, Any] = source.config(part)
    if "quantization_config" in config:
        raise ValueError(f"{part} of {source.location} is quantized, says its config.json: {reason}")
    for path in source.weight_files(part):
        if path.suffix == ".safetensors" and (found := _packed_tensor(path)):
            raise ValueError(f"{path} is quantized ({found}): {reason}")


def _packed_tensor(path: Path) -> str:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            part = file.get_slice(name)
            if part.get_dtype() in PACKED and len(part.get_shape()) > 1:
                return f"{name} is {part.get_dtype()}"
    return ""
