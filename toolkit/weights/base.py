"""A base model as files: the parts of a diffusers folder or Hub repository, or one single file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.config.key_names import KeyNames
from toolkit.models.hub import Root, is_single_file, single_file
from toolkit.models.weights import STEMS, weight_files
from toolkit.networks.keys.guess import denoiser_prefix
from toolkit.weights.slots import TEXT_PLACES, Slot, slots_in_file, slots_of_part
from toolkit.weights.stored import Kind, StoredTensors, refuse_quantized
from toolkit.weights.stream import write_stream

DENOISERS = ("transformer", "transformer_2", "unet")
TEXT_ENCODERS = tuple(prefix.removesuffix(".") for prefix in TEXT_PLACES)
INDEX = "model_index.json"
VARIANT = ".fp16"
"""In the names of files that `from_pretrained` reads only if it is asked for this variant."""


@dataclass(frozen=True)
class Base:
    """Where a base model is."""

    name: str
    file: Path | None
    """The single file, if it is one."""
    root: Root
    index: Mapping[str, Any]
    """Its model_index.json; empty for a single file, and for a folder that holds one part."""

    @property
    def denoisers(self) -> list[str]:
        """The parts that a LoRA is usually for: ["transformer"], ["unet"], or two experts; "" is the only part."""
        return [name for name in DENOISERS if self.has(name)] if self.index else [""]

    @property
    def text_encoders(self) -> list[str]:
        """The text encoders that LoRAs are made for; those of a single file are looked for when it is read."""
        return [name for name in TEXT_ENCODERS if self.has(name)]

    @property
    def weighty(self) -> list[str]:
        """All parts that have weights."""
        return [name for name in self.index if self.has(name) and self.has_weights(name)] or [""]

    def open(self, part: str) -> StoredTensors:
        """The tensors of a part. Raises ValueError if it is quantized."""
        if self.file is not None:
            stored, place = StoredTensors([self.file]), str(self.file)
        else:
            stored, place = StoredTensors(weight_files(self.root, part, self.library(part))), f"{self.name}/{part}"
            config = self.root.find([f"{part}/config.json".lstrip("/")])
            if config is not None and "quantization_config" in json.loads(config.read_text(encoding="utf-8")):
                raise ValueError(f"{place.rstrip('/')} is quantized, says its config.json; name the full checkpoint")
        refuse_quantized(stored, place.rstrip("/"))
        return stored

    def library(self, part: str) -> str:
        """The library whose file names a part has."""
        library = (self.index.get(part) or ("diffusers",))[0]
        if part == "" and self.root.find([f"{STEMS['transformers']}.safetensors"]):
            return "transformers"
        return library if library in STEMS else "diffusers"

    def slots(self, part: str, prefix: str, stored: StoredTensors, names: KeyNames) -> dict[str, Slot]:
        """Name of each weight of the module with that prefix -> its slot."""
        return slots_of_part(stored.kinds) if self.file is None else slots_in_file(stored.kinds, names, prefix)

    def has(self, name: str) -> bool:
        """Whether model_index.json names a class for a part."""
        entry = self.index.get(name)
        return isinstance(entry, list) and len(entry) == 2 and bool(entry[1])

    def has_weights(self, name: str) -> bool:
        """Whether a part is a model, and not a tokenizer or scheduler."""
        config = self.root.find([f"{name}/config.json"])
        return config is not None and not name.startswith(("scheduler", "tokenizer"))


def open_base(name: str, revision: str | None = None) -> Base:
    """The base of that name: a folder, `builtin:NAME`, a Hub id, or a single file. Raises ValueError if it is none."""
    if is_single_file(name):
        return Base(name, single_file(name), Root(name, revision), {})
    root = Root(name, revision)
    found = root.find([INDEX])
    if found is None and root.find(["config.json"]) is None:
        raise ValueError(f"{name} is no model: it has neither {INDEX} nor config.json, and is no .safetensors file")
    return Base(name, None, root, json.loads(found.read_text(encoding="utf-8")) if found is not None else {})


def prefix_of(part: str, names: KeyNames) -> str:
    """Before native names of the layers of a part."""
    return f"{part}." if part in TEXT_ENCODERS else denoiser_prefix(names)


def saved_kinds(stored: StoredTensors, dtype: torch.dtype | None) -> dict[str, Kind]:
    """Name -> what is written, numbers in `dtype`."""
    return {name: kind.saved(dtype) for name, kind in stored.kinds.items()}


def write_part(
    folder: Path, stored: StoredTensors, library: str, kinds: Mapping[str, Kind], tensor_of: Callable[[str], Tensor]
) -> None:
    """Write the weights of one part, in as many files as it has, under the names that `from_pretrained` looks for."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, count = STEMS[library], len(stored.files)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(stored.by_file.values(), 1):
        file = f"{stem}-{number:05d}-of-{count:05d}.safetensors" if count > 1 else f"{stem}.safetensors"
        write_stream(folder / file, {name: kinds[name] for name in names}, tensor_of, {})
        stored.close()
        weight_map |= dict.fromkeys(names, file)
    if count > 1:
        size = sum(torch.Size(kind.shape).numel() * kind.dtype.itemsize for kind in kinds.values())
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def copy_rest(base: Base, target: Path, changed: Iterable[str], whole: bool) -> None:
    """Copy what is not changed: the configurations of changed parts, and with `whole` all other parts."""
    for part in changed:
        _copy(base.root.file(f"{part}/config.json".lstrip("/")), target / part / "config.json")
    if not whole or not base.index:
        return
    _copy(base.root.file(INDEX), target / INDEX)
    for part in base.index:
        if part in changed or not base.has(part):
            continue
        _copy_small(base.root.small_files(part), target / part)
        if base.has_weights(part):
            _copy_weights(base, part, target / part)


def _copy_weights(base: Base, part: str, target: Path) -> None:
    """Copy the weights of a part; what has other names than `from_pretrained` looks for first is written anew."""
    library = base.library(part)
    files = weight_files(base.root, part, library)
    if all(file.suffix == ".safetensors" and VARIANT not in file.name for file in files):
        for file in [*files, *(sorted(files[0].parent.glob("*.index.json")) if len(files) > 1 else [])]:
            _copy(file, target / file.name)
        return
    for index in target.glob("*.index.*json"):
        index.unlink()
    stored = StoredTensors(files)
    write_part(target, stored, library, stored.kinds, stored.read)


def _copy_small(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")) if source.is_dir() else []:
        if path.is_file() and path.suffix in (".json", ".txt", ".model", ".jinja"):
            _copy(path, target / path.relative_to(source))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
