"""LoRAs merged into a base model, tensor by tensor, from files to files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from toolkit.atomic import atomic_path
from toolkit.config.errors import naming
from toolkit.config.key_names import KeyNames
from toolkit.networks.attached import group_layers, merged
from toolkit.networks.keys.file import read_sound
from toolkit.networks.keys.names import DENOISER, NOT_DENOISER, of_expert
from toolkit.networks.keys.names import TEXT_ENCODERS as TEXT_KEYS
from toolkit.networks.keys.suffixes import split_key
from toolkit.weights.base import Base, copy_rest, prefix_of, saved_kinds, write_part
from toolkit.weights.headers import MERGED, carried, merged_from
from toolkit.weights.slots import Slot, bias_of
from toolkit.weights.stored import StoredTensors
from toolkit.weights.stream import write_stream

META_FILE = "aitk_merged.json"


@dataclass(frozen=True)
class Added:
    """One LoRA that is merged."""

    path: Path
    weight: float = 1.0
    part: str | None = None
    """The denoiser that it is for, where the base has two."""
    key: str = ""
    """Of the config, which has it merged; "" for its place in `loras`."""


@dataclass
class Update:
    """What LoRAs do to the tensors of one part."""

    part: str
    stored: StoredTensors
    slots: dict[str, Slot]
    layers: list[tuple[str, float, dict[str, dict[str, Tensor]]]] = field(default_factory=list)
    """(key and file, weight, layer -> suffix -> tensor) in the order in which they are added."""

    def apply(self, name: str, dtype: torch.dtype) -> Tensor:
        """The tensor `name` with all updates, computed in fp32."""
        tensor = self.stored.read(name)
        weight, is_bias = (name, False) if name in self.slots else (name[: -len("bias")] + "weight", True)
        if weight not in self.slots or (is_bias and name != bias_of(weight)):
            return tensor.to(dtype)
        slot = self.slots[weight]
        touched = [one for one in self.layers if any(layer in one[2] for layer in slot.layers)]
        if not touched:
            return tensor.to(dtype)
        parts = slot.split(tensor.float())
        for file, strength, layers in touched:
            for number, layer in enumerate(slot.layers):
                if layer in layers:
                    parts[number] = _changed(parts[number], layers[layer], strength, is_bias, f"{file}: {layer}")
        return slot.join(parts).to(dtype)


def plan_updates(base: Base, added: Sequence[Added], names: KeyNames) -> tuple[list[Update], list[str]]:
    """(the parts that change, notes for the user). Raises ValueError if a LoRA does not belong to this base."""
    updates: dict[str, Update] = {}
    notes: list[str] = []
    opened: dict[str, StoredTensors] = {}
    for number, one in enumerate(added):
        key = one.key or f"loras.{number}.path"
        with naming(key):
            tensors, _ = read_sound(one.path)
        denoiser = _denoiser(base, one, one.key or f"loras.{number}.part")
        with naming(f"{key}: {one.path}"):
            tensors = of_expert(tensors, denoiser)
        count = 0
        for part, prefix in _wanted(base, denoiser, tensors, names):
            module = part if base.file is None else prefix
            if module not in updates:
                stored = opened.setdefault(part, base.open(part))
                updates[module] = Update(part, stored, base.slots(part, prefix, stored, names))
            known = [layer for slot in updates[module].slots.values() for layer in slot.layers]
            try:
                layers = group_layers(tensors, prefix, names, known)
            except ValueError as error:
                raise ValueError(f"{key}: {one.path} does not fit {base.name}/{part}: {error}") from error
            if layers:
                updates[module].layers.append((f"{key}: {one.path}", one.weight, layers))
                notes.append(f"{one.path.name} x {one.weight:g}: {len(layers)} layers of {prefix.removesuffix('.')}")
            count += len(layers)
        left = _left_out(base, tensors, updates)
        if left:
            notes.append(f"{one.path.name}: {left} keys of text encoders are left out, which {base.name} does not have")
        if not count:
            raise ValueError(f"{key}: {one.path}: none of its layers belongs to {base.name}")
    return [update for update in updates.values() if update.layers], notes


def merge_into_base(
    base: Base,
    updates: Sequence[Update],
    target: Path,
    *,
    added: Sequence[Added],
    dtype: torch.dtype | None = None,
    whole: bool = True,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Write the merged model: a file where the base is one, else a folder; `whole`: with the parts that stay."""
    sources = [(one.path, one.weight) for one in added]
    with atomic_path(target) as temporary:
        if base.file is not None:
            _write_file(updates, temporary, dtype, merged_from(sources), advance)
            return
        for update in updates:
            kinds = saved_kinds(update.stored, dtype)

            def tensor_of(name: str, update: Update = update) -> Tensor:
                advance(1)
                return update.apply(name, update.stored.kinds[name].saved(dtype).dtype)

            write_part(temporary / update.part, update.stored, base.library(update.part), kinds, tensor_of)
        copy_rest(base, temporary, [update.part for update in updates], whole)
        made = json.dumps({"base": base.name, MERGED: json.loads(merged_from(sources)[MERGED])}, indent=2)
        (temporary / META_FILE).write_text(made + "\n", encoding="utf-8")


def _write_file(
    updates: Sequence[Update],
    path: Path,
    dtype: torch.dtype | None,
    entries: Mapping[str, str],
    advance: Callable[[int], None],
) -> None:
    stored = updates[0].stored
    owner = {name: update for update in updates for weight in update.slots for name in (weight, bias_of(weight))}

    def tensor_of(name: str) -> Tensor:
        advance(1)
        wanted = stored.kinds[name].saved(dtype).dtype
        return owner[name].apply(name, wanted) if name in owner else stored.read(name).to(wanted)

    write_stream(path, saved_kinds(stored, dtype), tensor_of, {**carried(stored.header), **entries})
    stored.close()


def _changed(part: Tensor, tensors: Mapping[str, Tensor], strength: float, is_bias: bool, what: str) -> Tensor:
    try:
        if is_bias:
            return part + strength * tensors["diff_b"].float().reshape(part.shape) if "diff_b" in tensors else part
        return part if set(tensors) == {"diff_b"} else merged(part, tensors, strength)
    except RuntimeError as error:
        shapes = ", ".join(f"{suffix} {list(tensor.shape)}" for suffix, tensor in tensors.items())
        raise ValueError(f"{what} does not fit a weight of {list(part.shape)}: {shapes}") from error


def _denoiser(base: Base, one: Added, key: str) -> str:
    known = base.denoisers
    if one.part is not None and one.part not in known:
        raise ValueError(f"{key}: {base.name} has no {one.part} (known: {', '.join(filter(None, known))})")
    if one.part is None and len(known) > 1:
        raise ValueError(f"{key}: {base.name} has {' and '.join(known)}; say which one it is for")
    if not known:
        raise ValueError(f"base: {base.name} has no denoiser ({', '.join(base.index)})")
    return one.part or known[0]


def _wanted(base: Base, denoiser: str, tensors: Mapping[str, Tensor], names: KeyNames) -> list[tuple[str, str]]:
    """(part, prefix) of the modules that a file may change."""
    stems = [(split_key(key) or (key, ""))[0] for key in tensors]
    found = [(denoiser, prefix_of("", names))] if any(not NOT_DENOISER.match(stem) for stem in stems) else []
    for prefix, pattern in TEXT_KEYS.items():
        part = prefix.removesuffix(".")
        if any(pattern.match(stem) for stem in stems) and (base.file is not None or part in base.text_encoders):
            found.append(("" if base.file is not None else part, prefix))
    return found


def _left_out(base: Base, tensors: Mapping[str, Tensor], updates: Mapping[str, Update]) -> int:
    """How many keys are of modules that the base does not have."""
    stems = [(split_key(key) or (key, ""))[0] for key in tensors]
    known = [TEXT_KEYS[prefix] for prefix in TEXT_KEYS if prefix in updates or prefix.removesuffix(".") in updates]
    return sum(
        bool(NOT_DENOISER.match(stem))
        and not DENOISER.match(stem)
        and not any(pattern.match(stem) for pattern in known)
        for stem in stems
    )
