"""Quantized weights on disk, so that a second start neither reads nor quantizes the large checkpoint again.

A folder per checkpoint and kind of quantization, one safetensors file per block, written as the blocks are made.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from toolkit.atomic import atomic_path
from toolkit.models.fill import missing_names, tie
from toolkit.models.quantize import TORCHAO, quanto_layer, wrapper_classes
from toolkit.models.source import fingerprint
from toolkit.models.weights import open_file
from toolkit.models.wrapped import Spec, put_together, take_apart

FORMAT = "aitk-quantized-1"
INDEX = "index.json"


@dataclass(frozen=True)
class QuantizedCache:
    """The folder of all quantized weights."""

    folder: Path
    may_write: bool = True
    """One process of a run writes, the others read."""

    def place(self, **parts: Any) -> Path:
        """The folder of the weights that depend on `parts`, plain JSON values."""
        text = json.dumps({**parts, "format": FORMAT}, sort_keys=True)
        return self.folder / "quantized" / hashlib.blake2b(text.encode(), digest_size=20).hexdigest()

    def read(self, place: Path, module: nn.Module, qtype: str, device: torch.device) -> bool:
        """Fill the empty `module` on `device`; False, with it untouched, if it is not there or not whole."""
        if not (place / INDEX).is_file():
            return False
        try:
            index = json.loads((place / INDEX).read_text(encoding="utf-8"))
            files: Mapping[str, Mapping[str, Any]] = index["files"]
            is_whole = index["format"] == FORMAT and all(
                fingerprint(place / name).hex() == entry["print"] for name, entry in files.items()
            )
            specs = {name: spec for entry in files.values() for name, spec in entry["tensors"].items()}
            is_whole = is_whole and not missing_names(module, specs)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            is_whole = False
        if not is_whole:
            warnings.warn(f"{place} is not whole or not ours; the weights are quantized again", stacklevel=2)
            return False
        for name, entry in files.items():
            _fill(module, place / name, entry["tensors"], qtype, device)
        # `aitk cache prune` goes by the time of the last use
        with suppress(OSError):
            os.utime(place)
        tie(module)
        return True

    @contextmanager
    def writing(self, place: Path) -> Iterator[Writer | None]:
        """What stores blocks as they are made; the folder is there only when all went well."""
        writer: Writer | None = Writer()
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            warnings.warn(f"{place.parent}: quantized weights are not kept ({error})", stacklevel=3)
            writer = None
        if writer is None or not self.may_write:
            yield None
            return
        try:
            with atomic_path(place) as folder:
                folder.mkdir()
                writer.folder = folder
                yield writer
                writer.finish()
        except CacheFailure as error:
            warnings.warn(f"{place}: quantized weights are not kept ({error})", stacklevel=2)


class CacheFailure(Exception):
    """The cache could not be written, which is no reason to stop."""


class Writer:
    """Writes one file per block."""

    def __init__(self) -> None:
        self.folder = Path()
        self._files: dict[str, dict[str, Any]] = {}
        self._names: set[str] = set()
        self._seen: set[int] = set()
        self._failure: Exception | None = None

    def add(self, prefix: str, block: nn.Module) -> None:
        """Store what is in the block and not stored yet; a failure is raised by `finish`."""
        if self._failure is not None:
            return
        tensors: dict[str, Tensor] = {}
        specs: dict[str, Spec] = {}
        try:
            for name, tensor in _stored(block, prefix):
                # of tied tensors the first one is kept
                if name not in self._names and id(tensor) not in self._seen:
                    specs[name] = take_apart(name, tensor, tensors)
                    self._seen.add(id(tensor))
            self._write(specs, tensors)
        except (OSError, ValueError) as error:
            self._failure = error

    def finish(self) -> None:
        """Write the table of contents. Raises CacheFailure if anything went wrong."""
        try:
            if self._failure is not None:
                raise self._failure
            text = json.dumps({"format": FORMAT, "files": self._files})
            (self.folder / INDEX).write_text(text, encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CacheFailure(error) from error

    def _write(self, specs: dict[str, Spec], tensors: dict[str, Tensor]) -> None:
        path = self.folder / f"{len(self._files)}.safetensors"
        # a view of something larger, or a tensor of two names, would be refused
        save_file({name: tensor.cpu().clone().contiguous() for name, tensor in tensors.items()}, path)
        self._files[path.name] = {"tensors": specs, "print": fingerprint(path).hex()}
        self._names |= specs.keys()


def _stored(block: nn.Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of parameters and of the buffers that belong into a checkpoint."""
    for path, part in block.named_modules(prefix=prefix):
        kept = part._non_persistent_buffers_set
        for tensors in (part._parameters, {key: value for key, value in part._buffers.items() if key not in kept}):
            yield from (
                (f"{path}.{name}".lstrip("."), tensor)
                for name, tensor in tensors.items()
                if tensor is not None and not tensor.is_meta
            )


def _fill(module: nn.Module, path: Path, specs: Mapping[str, Spec], qtype: str, device: torch.device) -> None:
    handle, classes = open_file(path), wrapper_classes(qtype)
    for name, spec in specs.items():
        tensor = put_together(name, spec, lambda key: handle.get_tensor(key).to(device, copy=True), classes)
        parent, _, leaf = name.rpartition(".")
        owner = module.get_submodule(parent)
        if spec is not None and qtype not in TORCHAO:
            above, _, own = parent.rpartition(".")
            assert isinstance(owner, nn.Linear)
            owner = quanto_layer(owner, qtype)
            setattr(module.get_submodule(above), own, owner)
        if leaf in owner._parameters:
            owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
        else:
            owner._buffers[leaf] = tensor
