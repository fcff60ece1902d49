"""Where a checkpoint's parts come from: an embedded model, a diffusers folder, a Hub repository or single files."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from toolkit.models.fill import Settle, blocks, check_names, empty_module, fill, names_in_file
from toolkit.models.hub import Root, is_single_file, single_file
from toolkit.models.original import holds, read_single_file
from toolkit.models.weights import Weights, weight_files, weights_of

LIBRARIES = ("diffusers", "transformers")
Close = Callable[[], None]


@dataclass(frozen=True)
class Source:
    """A checkpoint; keeps nothing in memory.

    `root` is `builtin:NAME`, a folder with a `model_index.json`, or a Hub id. `overrides` names another such root, a
    folder or Hub repository that holds the part itself, or a single file, for single parts. `checkpoint` is a single
    file that comes before `root` for the parts that it holds. `classes`: a part's class where no library has it.
    """

    root: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None
    checkpoint: str | None = None
    classes: Mapping[str, type] = field(default_factory=dict)

    @property
    def location(self) -> str:
        """The folder, file or Hub id of the checkpoint."""
        return self.checkpoint or self._root.location

    def index(self) -> dict[str, Any]:
        """The checkpoint's model_index.json."""
        root = self._root
        if root.folder is not None and not (root.folder / "model_index.json").is_file():
            raise ValueError(
                f"model.name_or_path: {self.root!r} has no model_index.json; "
                "name a model in diffusers format (a folder, a Hub id, or builtin:tiny-flux) or a .safetensors file"
            )
        try:
            return _read_json(root.file("model_index.json"))
        except ValueError as error:
            if self.checkpoint is None:
                raise
            raise ValueError(
                f"{self.checkpoint} is one file, beside which {self.root} is needed. {error}; "
                "model.extras_name_or_path may name another folder or repository of this kind"
            ) from error

    def has(self, name: str) -> bool:
        """Whether `model_index.json` names a class for the part `name`; SD3 may come without its third text encoder."""
        return name in self.classes or bool((self.index().get(name) or (None, None))[1])

    def load(self, name: str, dtype: torch.dtype, settle: Settle | None = None) -> Any:
        """The part `name` ("vae", "text_encoder", "tokenizer", ...) in evaluation mode, weights in `dtype`, frozen.

        `settle` sees every block as soon as it is filled. None for a part that `model_index.json` names as null.
        """
        cls = self._class(name)
        if cls is None:
            return None
        with without_bars():
            if not issubclass(cls, torch.nn.Module):
                root, subfolder = self._place(name)
                return cls.from_pretrained(str(root.small_files(subfolder)))
            module = self._filled(name, cls, dtype, settle or (lambda name, block: None))
        return module.requires_grad_(False).eval()

    def empty(self, name: str, dtype: torch.dtype) -> Any:
        """The module `name` without memory for its weights."""
        cls = self._class(name)
        if hasattr(cls, "config_class") and cls.config_class is not None:
            folder = str(self._config_path(name).parent)
            return empty_module(lambda: cls(cls.config_class.from_pretrained(folder)), dtype).eval()
        return empty_module(lambda: cls.from_config(self.config(name)), dtype).eval()

    def open(self, name: str) -> tuple[Any, Mapping[str, torch.Tensor] | None, Close]:
        """(the module `name` without memory, its tensors by name, what lets go of the files).

        A tensor is read when it is asked for, in the type that it has in the file. None in place of the tensors if
        transformers has to put several of them together.
        """
        return self._opened(name, torch.float32)

    def weight_files(self, name: str) -> list[Path]:
        """The files that hold the weights of the part `name`."""
        file = self._single_file(name)
        return [file] if file is not None else weight_files(*self._place(name), _library(self._class(name)))

    def config(self, name: str) -> dict[str, Any]:
        """The configuration of the part `name`, without loading its weights."""
        return _read_json(self._config_path(name))

    def identity(self, name: str) -> str:
        """A digest that changes when the weights of the part `name` change: part of every cache key."""
        cls, digest = self._class(name), hashlib.blake2b(digest_size=16)
        if cls is None:
            return "none"
        for path in self._files(name, cls):
            digest.update(path.name.encode())
            digest.update(fingerprint(path))
        return digest.hexdigest()

    @property
    def _root(self) -> Root:
        return Root(self.root, self.revision)

    def _class(self, name: str) -> Any:
        """The class of a part; None if `model_index.json` names it as null."""
        if name in self.classes:
            return self.classes[name]
        library, class_name = self.index().get(name) or ("", "")
        if library is None and class_name is None:
            return None
        if library in LIBRARIES:
            return getattr(importlib.import_module(library), class_name)
        if library.isidentifier() and importlib.util.find_spec(f"diffusers.pipelines.{library}"):
            return getattr(importlib.import_module(f"diffusers.pipelines.{library}"), class_name)
        raise ValueError(f"{self._root.location}/model_index.json names no part {name!r} of {' or '.join(LIBRARIES)}")

    def _opened(self, name: str, dtype: torch.dtype) -> tuple[Any, Mapping[str, torch.Tensor] | None, Close]:
        module = self.empty(name, dtype)
        if (file := self._single_file(name)) is not None:
            return module, *read_single_file(file, name, module)
        return module, *self._read_folder(name, module)

    def _filled(self, name: str, cls: Any, dtype: torch.dtype, settle: Settle) -> Any:
        module, tensors, close = self._opened(name, dtype)
        if tensors is not None:
            return fill(module, tensors, dtype, settle=settle, close=close)
        # transformers has to put several tensors of the file together
        module = cls.from_pretrained(str(self._config_path(name).parent), dtype=dtype)
        for prefix, block in [*blocks(module), ("", module)]:
            settle(prefix, block)
        return module

    def _read_folder(self, name: str, module: Any) -> tuple[Weights | None, Close]:
        root, subfolder = self._place(name)
        weights = weights_of(weight_files(root, subfolder, _library(module)))
        names = names_in_file(module, weights)
        if names is None:
            return None, weights.close
        check_names(module, names, set(weights) - set(names.values()), f"{root.location}/{subfolder}".rstrip("/"))
        found = weights.renamed(names)
        return found, found.close

    def _files(self, name: str, cls: type) -> list[Path]:
        """What a part is made of: weights and configuration, or vocabulary."""
        if not issubclass(cls, torch.nn.Module):
            root, subfolder = self._place(name)
            return sorted(path for path in root.small_files(subfolder).rglob("*") if path.is_file())
        file = self._single_file(name)
        if file is None:
            root, subfolder = self._place(name)
            return [*weight_files(root, subfolder, _library(cls)), self._config_path(name)]
        return [file, self._config_path(name)]

    def _single_file(self, name: str) -> Path | None:
        """The single file that holds the weights of a part, if any does."""
        override = self.overrides.get(name)
        if override is not None:
            return single_file(override) if is_single_file(override) else None
        if self.checkpoint is None:
            return None
        file = single_file(self.checkpoint)
        if name in ("transformer", "unet"):
            return file
        may_hold = name.startswith(("vae", "text_encoder"))
        return file if may_hold and holds(file, name, self.empty(name, torch.float32)) else None

    def _config_path(self, name: str) -> Path:
        root, subfolder = self._place(name)
        file = _config_file(name)
        wanted = f"{subfolder}/{file}" if subfolder else file
        index = {} if name in self.overrides or not root.find(["model_index.json"]) else self.index()
        if index and name not in index and not root.find([wanted]):
            kind = index.get("_class_name", "another kind of model")
            raise ValueError(f"model.name_or_path: {root.location} is a {kind} without {name}; is model.arch right?")
        return root.file(wanted)

    def _place(self, name: str) -> tuple[Root, str]:
        """(root, subfolder) of a part's configuration. An override may be a whole model or the part itself."""
        override = self.overrides.get(name)
        if override is None or is_single_file(override):
            return self._root, name
        root, file = Root(override), _config_file(name)
        for subfolder in (name, ""):
            if root.find([f"{subfolder}/{file}".lstrip("/")]):
                return root, subfolder
        if name.startswith("tokenizer"):
            # a text encoder's own folder; transformers would make an empty tokenizer of it
            return self._root, name
        if root.folder is None:
            root.file(file)  # says why the Hub does not give it
        raise ValueError(f"model: {override} holds no {name}: name a folder with {name}/ or {file} in it")


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


def fingerprint(path: Path, block: int = 1 << 20, stride: int = 1 << 26) -> bytes:
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


def _library(module: Any) -> str:
    """The library whose file names the weights of a class have."""
    return "transformers" if hasattr(module, "base_model_prefix") else "diffusers"


def _config_file(name: str) -> str:
    if name.startswith("tokenizer"):
        return "tokenizer_config.json"
    if name == "scheduler":
        return "scheduler_config.json"
    return "preprocessor_config.json" if "processor" in name or "extractor" in name else "config.json"


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
