"""`--set KEY=VALUE`: a path from the file's top, from `config`, or from inside the process; the value is YAML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.config.choice import load_plugin
from toolkit.config.document import Document
from toolkit.config.errors import ConfigError, KeyPath, Problem, join
from toolkit.config.names import suggestion
from toolkit.config.reading.environment import Environment, has_reference
from toolkit.config.reading.text import parse_value
from toolkit.config.spellings import is_spelling
from toolkit.config.unknown import OURS
from toolkit.config.walk import first_unknown

TOP_KEYS = ("job", "config", "meta")
CONFIG_KEYS = ("name", "process", "launch")


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Change the document; what cannot be done is added to its problems."""
    for text in overrides:
        key, equals, value_text = text.partition("=")
        where = f"--set {text}"
        if not equals or not key.strip():
            document.problems.append(Problem(where, "", "must have the form KEY=VALUE, such as train.steps=50"))
            continue
        path: KeyPath = tuple(int(part) if part.isdecimal() else part for part in key.strip().split("."))
        try:
            value = parse_value(value_text, Environment())
        except ConfigError as error:
            if has_reference(value_text):
                document.problems.append(Problem(where, "", error.problems[0].message))
                continue
            value = value_text
        for place in places_of(document, path, where):
            put(document, place, value, where)
            if has_reference(value_text):
                document.secrets[place] = value_text


def places_of(document: Document, path: KeyPath, where: str) -> list[KeyPath]:
    """Where in the document the path leads: nowhere if it is unknown, to several processes if they know it."""
    if path[0] in TOP_KEYS:
        inside = path[3:] if path[:2] == ("config", "process") else ()
        return [path] if not inside else _known_in(document, [path[2]], path[3:], where)
    if path[0] in CONFIG_KEYS:
        return places_of(document, ("config", *path), where)
    processes = document.get(("config", "process"))
    return _known_in(document, list(range(len(processes))) if isinstance(processes, list) else [], path, where)


def _known_in(document: Document, indices: list[Any], path: KeyPath, where: str) -> list[KeyPath]:
    found: list[KeyPath] = []
    misses: list[tuple[int, list[str]]] = []
    for index in indices:
        data = document.get(("config", "process", index))
        if not isinstance(data, dict):
            continue
        miss = None if is_spelling(path) else _miss(data, path)
        if miss is None:
            found.append(("config", "process", index, *path))
        else:
            misses.append(miss)
    if not found:
        document.problems.append(Problem(where, "", _explain(path, misses)))
    return found


def _miss(data: dict[str, Any], path: KeyPath) -> tuple[int, list[str]] | None:
    """Where the path leaves what the process knows; a process that cannot be told is asked at validation."""
    try:
        plugin = load_plugin("processes", str(data.get("type")))
    except ValueError:
        return None
    return first_unknown(plugin, data, path)


def _explain(path: KeyPath, misses: list[tuple[int, list[str]]]) -> str:
    if not misses:
        return "there is no process to change"
    position, known = max(misses, key=lambda miss: miss[0])
    place = f" in {join(path[:position])}" if position else " in the config, its processes or at the top"
    if known and all(name.isdecimal() for name in known):
        return f"there is no entry {path[position]} in {join(path[:position])} (it has {len(known)})"
    key, options = str(path[position]), known if position else [*known, *TOP_KEYS, *CONFIG_KEYS]
    meant = OURS.get(key, key).rpartition(".")[2]
    return f"there is no key '{key}'{place}{suggestion(meant, options)}"


def put(document: Document, path: KeyPath, value: Any, where: str) -> None:
    for length in range(1, len(path)):
        parent = document.get(path[:length])
        if isinstance(parent, list):
            index = path[length]
            if not isinstance(index, int) or index >= len(parent):
                document.problems.append(Problem(where, "", f"there is no entry {index} (there are {len(parent)})"))
                return
        elif parent is not None and not isinstance(parent, dict):
            document.problems.append(Problem(where, "", f"'{path[length - 1]}' is a plain value and has no keys"))
            return
    for marks in (document.lines, document.secrets, document.origins):
        for old in [old for old in marks if old[: len(path)] == path and (marks is not document.lines or old != path)]:
            del marks[old]  # type: ignore[attr-defined]
    document.set(path, value)
    document.origins[path] = where
