"""Where a checkpoint's parts come from: an embedded model, a diffusers folder or a Hub repository."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ASSETS = Path(__file__).resolve().parents[1] / "assets"
LIBRARIES = ("diffusers", "transformers")
WEIGHT_FILES = (".safetensors", ".bin")


@dataclass(frozen=True)
class Source:
    """A checkpoint in diffusers format; keeps nothing in memory.

    `root` is `builtin:NAME`, a folder with a `model_index.json`, or a Hub id. `overrides` names another such root, or a
    folder that holds the part itself, for single parts.
    """

    root: str
    overrides: Mapping[str, str] = field(default_factory=dict)

    @property
    def location(self) -> str:
        """The folder or Hub id that diffusers' `from_pretrained` takes."""
        return _resolve(self.root)

    def load(self, name: str, dtype: torch.dtype) -> Any:
        """The part `name` ("vae", "text_encoder", "tokenizer", ...) in evaluation mode, weights in `dtype`, frozen."""
        library, class_name = self._index().get(name) or ("", "")
        if library not in LIBRARIES:
            raise ValueError(f"{self.location}/model_index.json names no part {name!r} of {' or '.join(LIBRARIES)}")
        cls = getattr(importlib.import_module(library), class_name)
        root, subfolder = self._place(name)
        with without_bars():
            if not issubclass(cls, torch.nn.Module):
                return cls.from_pretrained(root, subfolder=subfolder)
            wanted = {"torch_dtype": dtype} if library == "diffusers" else {"dtype": dtype}
            module = cls.from_pretrained(root, subfolder=subfolder, **wanted)
        return module.requires_grad_(False).eval()

    def config(self, name: str) -> dict[str, Any]:
        """The configuration of the part `name`, without loading its weights."""
        root, subfolder = self._place(name)
        return _read_json(root, f"{subfolder}/{_config_file(name)}" if subfolder else _config_file(name))

    def identity(self, name: str) -> str:
        """A digest that changes when the weights of the part `name` change: part of every cache key."""
        root, subfolder = self._place(name)
        digest = hashlib.blake2b(digest_size=16)
        for path in sorted(_local(root, subfolder).rglob("*")):
            if path.is_file() and (path.suffix in WEIGHT_FILES or path.suffix in (".json", ".txt", ".model")):
                digest.update(path.name.encode())
                digest.update(_fingerprint(path))
        return digest.hexdigest()

    def _index(self) -> dict[str, list[str]]:
        root = Path(self.location)
        if root.exists() and not (root / "model_index.json").is_file():
            raise ValueError(
                f"model.name_or_path: {self.root!r} has no model_index.json; "
                "name a model in diffusers format (a folder, a Hub id, or builtin:tiny-flux)"
            )
        return _read_json(self.location, "model_index.json")

    def _place(self, name: str) -> tuple[str, str]:
        """(root, subfolder) of a part. An override that is a folder may be a whole model or the part itself."""
        override = self.overrides.get(name)
        if override is None:
            return self.location, name
        root = Path(_resolve(override))
        if not root.exists():
            return override, name
        if (root / name).is_dir():
            return str(root), name
        if (root / _config_file(name)).is_file():
            return str(root), ""
        if root.is_dir() and name.startswith("tokenizer"):
            # a text encoder's own folder; transformers would make an empty tokenizer of it
            return self.location, name
        raise ValueError(f"model: {override} holds no {name}: name a folder with {name}/ or {_config_file(name)} in it")


@contextmanager
def without_bars() -> Iterator[None]:
    """Switch off the libraries' own progress bars inside the block."""
    import diffusers
    import transformers

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in libraries:
            library.enable_progress_bar()


def _config_file(name: str) -> str:
    if name.startswith("tokenizer"):
        return "tokenizer_config.json"
    return "scheduler_config.json" if name == "scheduler" else "config.json"


def _resolve(root: str) -> str:
    if root.startswith("builtin:"):
        folder = ASSETS / root.removeprefix("builtin:")
        if not folder.is_dir():
            known = sorted(f"builtin:{path.name}" for path in ASSETS.iterdir() if (path / "model_index.json").exists())
            raise ValueError(f"model.name_or_path: there is no embedded model {root!r} (known: {', '.join(known)})")
        return str(folder)
    expanded = Path(root).expanduser()
    return str(expanded) if expanded.exists() else root


def _read_json(root: str, file: str) -> dict[str, Any]:
    if Path(root).is_dir():
        path = Path(root) / file
    else:
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(root, file))
    return json.loads(path.read_text(encoding="utf-8"))


def _local(root: str, subfolder: str) -> Path:
    if Path(root).is_dir():
        return Path(root) / subfolder
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(root, allow_patterns=f"{subfolder}/*")) / subfolder


def _fingerprint(path: Path, block: int = 1 << 20, stride: int = 1 << 26) -> bytes:
    """Digest of a file: a Hub blob is named by its hash; else size, 1 MiB of every 64, and the end."""
    real = path.resolve()
    if real.parent.name == "blobs":
        return real.name.encode()
    size = real.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with real.open("rb") as file:
        for start in [*range(0, size, stride), max(0, size - block)]:
            file.seek(start)
            digest.update(file.read(block))
    return digest.digest()
