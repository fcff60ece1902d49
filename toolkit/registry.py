"""Names that YAML can use -> classes that are imported when a run names them. Listing imports nothing.

Built-ins and third parties come in by the same door, the entry-point tables `aitk.<kind>` (see `plugin_sources`).
One name with two meanings is an error, raised when the name is used; a plugin that does not load fails only the run
that names it.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.plugin_entry import KINDS, SINGULAR, Broken, Entry, PluginError, import_target, load_entry
from toolkit.plugin_sources import LISTS, extension_folders, read_folder, read_installed, read_tables

__all__ = [
    "KINDS",
    "ROOT",
    "Broken",
    "DuplicateName",
    "Entry",
    "PluginError",
    "Registry",
    "UnknownName",
    "get_registry",
    "nearest_names",
]

ROOT = Path(__file__).resolve().parent.parent
BUILT_IN = "extensions_built_in."


class UnknownName(ValueError):
    """No plugin of this kind has this name."""

    def __init__(self, kind: str, name: str, known: Iterable[str], broken: Iterable[Broken] = ()) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        self.nearest = nearest_names(name, self.known)
        hint = "; did you mean " + " or ".join(f"'{near}'" for near in self.nearest) + "?" if self.nearest else ""
        text = f"no {SINGULAR[kind]} is named '{name}'{hint} (known: {', '.join(self.known) or 'none'})"
        super().__init__(text + "".join(f"; not read: {item}" for item in broken))


class DuplicateName(ValueError):
    """Two plugins of one kind have the same name."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        places = " and by ".join(f"{entry.origin} ({entry.target})" for entry in entries)
        super().__init__(
            f"{SINGULAR[entries[0].kind]} '{entries[0].name}' is declared by {places}; rename or remove one"
        )


class Registry:
    """What YAML can name here."""

    def __init__(self, entries: Iterable[Entry], broken: Iterable[Broken] = ()) -> None:
        self.broken = list(broken)
        self.unread: list[Entry] = []
        self._used: dict[str, Entry] = {}
        self._declared: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in KINDS}
        for entry in entries:
            self._add(entry)

    @classmethod
    def discover(cls, root: Path | None = None, env: Mapping[str, str] = os.environ) -> Registry:
        """Read all declarations, those of ./extensions and $AITK_EXTENSIONS too; import nothing."""
        root = ROOT if root is None else Path(root)
        sources = [read_tables(root / "pyproject.toml"), read_installed()]
        sources += [read_folder(folder) for folder in extension_folders(root, env, os.pathsep)]
        return cls([entry for found, _ in sources for entry in found], [item for _, bad in sources for item in bad])

    def entries(self, kind: str) -> dict[str, Entry]:
        """Name -> entry, sorted by name; of a name declared twice, the first."""
        return {name: found[0] for name, found in sorted(self._declared[kind].items())}

    def duplicates(self, kind: str) -> dict[str, list[Entry]]:
        """Names with two meanings; using one is an error."""
        return {name: found for name, found in sorted(self._declared[kind].items()) if len(found) > 1}

    def load(self, kind: str, name: str) -> Any:
        """Import the plugin class that `name` stands for."""
        if name not in self._declared[kind]:
            self._name_unread(kind)
        found = self._declared[kind].get(name)
        if found is None:
            raise UnknownName(kind, name, self._declared[kind], self.broken)
        if len(found) > 1:
            raise DuplicateName(found)
        plugin = load_entry(found[0])
        self._used[found[0].extension] = found[0]
        return plugin

    def origins(self) -> dict[str, str]:
        """From where each extension came of which a plugin was loaded, without those built in."""
        return {name: entry.origin for name, entry in sorted(self._used.items()) if not name.startswith(BUILT_IN)}

    def _add(self, entry: Entry) -> None:
        if not entry.name:
            self.unread.append(entry)
            return
        found = self._declared[entry.kind].setdefault(entry.name, [])
        for index, other in enumerate(found):
            if entry.is_same(other):
                # the folder that the user edits, not the copy that was installed from it
                found[index] = other if other.package_file else entry
                return
        found.append(entry)

    def _name_unread(self, kind: str) -> None:
        """Import the classes of extension folders whose name cannot be read from their text."""
        attribute = next((attribute for found, attribute, _ in LISTS.values() if found == kind), "")
        waiting = [entry for entry in self.unread if entry.kind == kind]
        self.unread = [entry for entry in self.unread if entry.kind != kind]
        for entry in waiting:
            try:
                name = getattr(import_target(entry), attribute, None)
                if not isinstance(name, str):
                    raise PluginError(entry, f"has no '{attribute}', the name that YAML uses")
                self._add(replace(entry, name=name))
            except PluginError as error:
                self.broken.append(Broken(entry.origin, str(error)))


@functools.cache
def get_registry() -> Registry:
    """The registry of this process, discovered once."""
    return Registry.discover()


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Known names that a reader could have meant by `name`."""
    by_lower = {option.lower(): option for option in known}
    return [by_lower[hit] for hit in difflib.get_close_matches(name.lower(), by_lower, n=count)]
