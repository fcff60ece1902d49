"""Where plugins are declared: entry points of distributions, tables of a pyproject.toml, lists in an extension folder.

All of it is read as text; nothing is imported. The registry puts the results together.
"""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from toolkit.plugin_entry import KINDS, Broken, Entry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GROUP = "aitk."
# list in the __init__.py of an extension folder -> kind, attribute with the name, what makes a plugin of the class
LISTS = {
    "AI_TOOLKIT_EXTENSIONS": ("processes", "uid", "toolkit.extension:as_plugin"),
    "AI_TOOLKIT_MODELS": ("models", "arch", ""),
}
Found = tuple[list[Entry], list[Broken]]


def read_installed() -> Found:
    """Entry points of the installed distributions but our own, whose pyproject.toml is read: it is never stale."""
    entries, broken = [], []
    installed = entry_points()
    for kind in KINDS:
        for point in installed.select(group=GROUP + kind):
            name = point.dist.name if point.dist else "unknown"
            if name == "aitk":
                continue
            origin = f"distribution {name} {point.dist.version}" if point.dist else "an unnamed distribution"
            if ":" in point.value:
                entries.append(Entry(kind, point.name, point.value, origin))
            else:
                broken.append(
                    Broken(origin, f"{GROUP}{kind}: {point.name} = '{point.value}' is not 'module:attribute'")
                )
    return entries, broken


def read_tables(file: Path, in_folder: bool = False) -> Found:
    """The tables `[project.entry-points."aitk.<kind>"]` of a pyproject.toml."""
    try:
        with file.open("rb") as stream:
            groups = tomllib.load(stream).get("project", {}).get("entry-points", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        return [], [Broken(str(file), str(error))]
    entries, broken = [], []
    for group, table in groups.items():
        if not group.startswith(GROUP):
            continue
        try:
            entries += [_table_entry(group, name, target, file, in_folder) for name, target in table.items()]
        except ValueError as error:
            broken.append(Broken(str(file), str(error)))
    return entries, broken


def read_folder(folder: Path) -> Found:
    """All extensions of a folder: sub-folders with a pyproject.toml, an __init__.py with the lists, or both."""
    entries: list[Entry] = []
    broken: list[Broken] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        sources = [(path / "pyproject.toml", read_tables), (path / "__init__.py", read_lists)]
        present = [(file, read) for file, read in sources if file.is_file()]
        if not present:
            continue
        found, failed = [], []
        for file, read in present:
            more, problems = read(file, True) if read is read_tables else read_lists(file)
            found += more
            failed += problems
        if not found and not failed:
            names = f"neither aitk.* tables in pyproject.toml nor {' or '.join(LISTS)} in __init__.py"
            failed = [Broken(str(path), f"declares no plugin ({names})")]
        entries += found
        broken += failed
    return entries, broken


def read_lists(file: Path) -> Found:
    """The classes in AI_TOOLKIT_EXTENSIONS and AI_TOOLKIT_MODELS; those without a readable name get an empty one."""
    package = f"extensions.{file.parent.name}"
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError) as error:
        return [], [Broken(str(file), f"{type(error).__name__}: {error}")]
    entries, broken = [], []
    for list_name, (kind, attribute, adapter) in LISTS.items():
        value = _assigned(tree.body, list_name)
        if value is None:
            continue
        if not isinstance(value, ast.List) or not all(isinstance(item, ast.Name) for item in value.elts):
            broken.append(Broken(str(file), f"{list_name} must be a list of class names, written out"))
            continue
        for item in value.elts:
            assert isinstance(item, ast.Name)
            for name in _names_of(tree, file.parent, item.id, attribute) or [""]:
                entries.append(Entry(kind, name, f"{package}:{item.id}", str(file), package, file, adapter))
    return entries, broken


def _table_entry(group: str, name: str, target: Any, file: Path, in_folder: bool) -> Entry:
    kind = group.removeprefix(GROUP)
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"; did you mean '{GROUP}{near[0]}'?" if near else f" (known: {', '.join(KINDS)})"
        raise ValueError(f"there is no table '{group}'{hint}")
    if not isinstance(target, str) or ":" not in target:
        raise ValueError(f"{group}: {name} = {target!r} is not 'module:attribute'")
    if not in_folder:
        return Entry(kind, name, target, str(file))
    package = target.partition(":")[0].partition(".")[0]
    places = [
        base / tail
        for base in (file.parent, file.parent / "src")
        for tail in (f"{package}/__init__.py", f"{package}.py")
    ]
    package_file = next((place for place in places if place.is_file()), None)
    if package_file is None:
        raise ValueError(f"{group}: {name} = '{target}', but there is no package '{package}' beside the pyproject.toml")
    return Entry(kind, name, target, str(file), package, package_file)


def _names_of(tree: ast.Module, folder: Path, class_name: str, attribute: str) -> list[str]:
    """The values of `attribute` of a class: a string, or a Literal annotation; follows `from .module import Class`."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return _literal_names(node.body, attribute)
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            for alias in node.names:
                if class_name == (alias.asname or alias.name):
                    return _names_in_module(folder / node.module.replace(".", "/"), alias.name, attribute)
    return []


def _names_in_module(path: Path, class_name: str, attribute: str) -> list[str]:
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            try:
                tree = ast.parse(file.read_text(encoding="utf-8"))
            except (SyntaxError, ValueError):
                return []
            return _names_of(tree, file.parent, class_name, attribute)
    return []


def _literal_names(body: list[ast.stmt], attribute: str) -> list[str]:
    value = _assigned(body, attribute)
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return [value.value]
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == attribute:
            inner = [part.value for part in ast.walk(node.annotation) if isinstance(part, ast.Constant)]
            return [name for name in inner if isinstance(name, str)]
    return []


def _assigned(body: list[ast.stmt], name: str) -> ast.expr | None:
    for node in body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            return node.value
    return None


def extension_folders(root: Path, env: Mapping[str, str], separator: str) -> list[Path]:
    """./extensions, each path of $AITK_EXTENSIONS, <root>/extensions: each once."""
    extra = [Path(text) for text in env.get("AITK_EXTENSIONS", "").split(separator) if text]
    return list(dict.fromkeys(path.resolve() for path in [Path("extensions"), *extra, root / "extensions"]))
