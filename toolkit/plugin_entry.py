"""One declared plugin: its name, what to import for it, who declared it. Read by `plugin_sources` for `registry`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

KINDS = ("processes", "models", "networks", "optimizers", "captioners", "launchers")
SINGULAR = {
    "processes": "process type",
    "models": "arch",
    "networks": "network",
    "optimizers": "optimizer",
    "captioners": "captioner",
    "launchers": "launcher",
}


@dataclass(frozen=True)
class Entry:
    """`name` in YAML means `target`; `package_file` is set where the package lies in an extension folder."""

    kind: str
    name: str
    target: str
    origin: str
    package: str = ""
    package_file: Path | None = None
    adapter: str = ""

    @property
    def extension(self) -> str:
        """The package that brings this plugin: extensions_built_in.flux, extensions.mine, my_package."""
        parts = self.target.partition(":")[0].split(".")
        return ".".join(parts[:2] if parts[0].startswith("extensions") else parts[:1])

    def is_same(self, other: Entry) -> bool:
        """True if both lead to the same class: an installed copy of an extension folder is that extension."""
        files = {self.package_file, other.package_file} - {None}
        return self.target == other.target and len(files) <= 1


@dataclass(frozen=True)
class Broken:
    """A declaration that cannot be used, and why."""

    origin: str
    reason: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.reason}"


class PluginError(ValueError):
    """A plugin is declared but does not load."""

    def __init__(self, entry: Entry, reason: str) -> None:
        self.entry = entry
        what = f"{SINGULAR[entry.kind]} '{entry.name}'" if entry.name else SINGULAR[entry.kind]
        super().__init__(f"{what} ({entry.target}), declared by {entry.origin}, {reason}")


def load_entry(entry: Entry) -> Any:
    """Import the class of `entry` and make sure that it is a plugin."""
    found = import_target(entry)
    if entry.adapter:
        found = _resolve(entry.adapter)(found)
    if not (isinstance(found, type) and callable(getattr(found, "build", None))):
        raise PluginError(entry, "is not a plugin: a class with the config keys as fields and a build() is needed")
    return found


def import_target(entry: Entry) -> Any:
    """Import what "module:attribute" of `entry` names."""
    try:
        if entry.package_file is not None:
            _import_package(entry, entry.package_file)
        return _resolve(entry.target)
    except PluginError:
        raise
    # A plugin is other people's code: whatever it raises at import is its own failure, told with its origin.
    except (Exception, SystemExit) as error:
        raise PluginError(entry, f"does not load: {type(error).__name__}: {error}") from error


def _resolve(target: str) -> Any:
    module_name, _, attribute = target.partition(":")
    found: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _import_package(entry: Entry, file: Path) -> None:
    """Import the package of an extension folder from that folder; sys.path stays as it is."""
    present = sys.modules.get(entry.package)
    if present is not None:
        if present.__file__ is None or not file.samefile(present.__file__):
            raise PluginError(
                entry,
                f"cannot be imported: another package called {entry.package} is already in use"
                f" ({present.__file__}); rename one of them",
            )
        return
    parent, _, own = entry.package.rpartition(".")
    if parent:
        _namespace(parent, file.parent.parent)
    inside = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(entry.package, file, submodule_search_locations=inside)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[entry.package] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[entry.package]
        raise
    if parent:
        setattr(sys.modules[parent], own, module)


def _namespace(name: str, folder: Path) -> None:
    """A parent package made by hand: a foreign `extensions` would win over our folder, which has no __init__.py."""
    if name not in sys.modules:
        module = ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module
