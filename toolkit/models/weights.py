"""Tensors of a checkpoint by name, read one at a time from mapped safetensors files."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from toolkit.models.hub import Root

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
SCALES = (".scale_weight", ".weight_scale")
"""What stands for `.weight` in the name of the scale of a weight that ComfyUI stores in 8 bits."""
LEFT_OUT = ("scaled_fp8", ".scale_input", ".input_scale", ".comfy_quant", *SCALES)


class Weights(Mapping[str, torch.Tensor]):
    """Tensors by name. What is read is a view of the mapped file: copy it to keep it beyond `close`."""

    def __init__(self, places: Mapping[str, tuple[Path, str]], scales: Mapping[tuple[Path, str], str]) -> None:
        self._places, self._scales = dict(places), scales
        self._open: dict[Path, Any] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        path, key = self._places[name]
        tensor = self._handle(path).get_tensor(key)
        scale = self._scales.get((path, key))
        if scale is None or tensor.dtype not in FLOAT8:
            return tensor
        factor = self._handle(path).get_tensor(scale).float()
        return tensor.float() * factor.view(-1, *(1,) * (tensor.ndim - 1))

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; its values are not read."""
        path, key = self._places[name]
        return tuple(self._handle(path).get_tensor(key).shape)

    def renamed(self, names: Mapping[str, str]) -> Weights:
        """The same tensors under other names: new name -> name here."""
        return Weights({new: self._places[name] for new, name in names.items()}, self._scales)

    def below(self, prefix: str) -> Weights:
        """The tensors whose names start with `prefix`, without it."""
        return self.renamed({name.removeprefix(prefix): name for name in self if name.startswith(prefix)})

    def close(self) -> None:
        """Let go of the mapped files; they are opened again when needed."""
        self._open.clear()

    def _handle(self, path: Path) -> Any:
        if path not in self._open:
            self._open[path] = open_file(path)
        return self._open[path]


class PickledTensors:
    """A `.bin` file of tensors with the methods of a safetensors handle; nothing but tensors is unpickled."""

    def __init__(self, path: Path) -> None:
        self._tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", mmap=True, weights_only=True)

    def keys(self) -> Iterable[str]:
        """The names of the tensors."""
        return self._tensors.keys()

    def get_tensor(self, name: str) -> torch.Tensor:
        """One tensor, a view of the mapped file."""
        return self._tensors[name]


def open_file(path: Path) -> Any:
    """A handle on a file of tensors. Raises ValueError if it is none."""
    try:
        return PickledTensors(path) if path.suffix == ".bin" else safe_open(path, framework="pt")
    except (SafetensorError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no whole file of tensors ({error}); fetch it again") from error


def weights_of(files: Iterable[Path]) -> Weights:
    """The tensors of all `files`; scales of 8-bit weights are not listed, but multiplied in when the weight is read."""
    places: dict[str, tuple[Path, str]] = {}
    scales: dict[tuple[Path, str], str] = {}
    for path in files:
        handle = open_file(path)
        names = set(handle.keys())
        for name in sorted(names):
            stem, _, leaf = name.rpartition(".")
            if leaf == "weight":
                scale = next((stem + other for other in SCALES if stem + other in names), None)
                if scale is not None:
                    scales[(path, name)] = scale
            if not name.endswith(LEFT_OUT):
                places[name] = (path, name)
        _check_scaled(path, handle, names)
    return Weights(places, scales)


def weight_files(root: Root, subfolder: str, library: str) -> list[Path]:
    """The files that hold the weights of a part of a diffusers folder, its shards in order.

    Of several precisions the full one is taken, and a pickle only if there is nothing else.
    """
    stem, folder = STEMS[library], f"{subfolder}/" if subfolder else ""
    pickle_stem = "pytorch_model" if library == "transformers" else stem
    names = [f"{stem}.safetensors.index.json", f"{stem}.safetensors"]
    names += [f"{stem}.safetensors.index.fp16.json", f"{stem}.fp16.safetensors"]
    names += [f"{pickle_stem}.bin.index.json", f"{pickle_stem}.bin"]
    found = root.find([folder + name for name in names])
    if found is None and root.folder is not None:
        others = sorted((root.folder / subfolder).glob("*.safetensors"))
        found = others[0] if len(others) == 1 else None
    if found is None:
        found = root.file(folder + names[1])  # says what is missing
    if found.suffix != ".json":
        return [found]
    shards = sorted(set(json.loads(found.read_text(encoding="utf-8"))["weight_map"].values()))
    return [root.file(folder + shard) for shard in shards]


def _check_scaled(path: Path, handle: Any, names: set[str]) -> None:
    """Refuse weights that ComfyUI stores in a format other than scaled 8-bit floats."""
    for name in names:
        if name.endswith(".comfy_quant"):
            described = json.loads(bytes(handle.get_tensor(name).tolist()) or b"{}").get("format", "")
            if not described.startswith("float8"):
                raise ValueError(f"{path}: {name} says that the weight is stored as {described!r}, which is not read")
            return
