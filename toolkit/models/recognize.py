"""Which family a checkpoint belongs to, by what its model_index.json says; for commands that are not told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.config.plugins import ModelPlugin
from toolkit.models.hub import Root, is_single_file


class Unrecognized(ValueError):
    """A checkpoint that does not say which family it belongs to."""


def recognize(name: str, plugins: Mapping[str, type[ModelPlugin]], revision: str | None = None) -> str:
    """The arch of the checkpoint `name`, one of the keys of `plugins`.

    Raises Unrecognized if it does not say enough, and ValueError if it is not there.
    """
    for arch, plugin in plugins.items():
        if vars(plugin).get("example") == name:
            return arch
    if is_single_file(name):
        raise Unrecognized(f"{name} is a single file, which does not say what it is")
    root = Root(name, revision)
    if root.folder is not None and not (root.folder / "model_index.json").is_file():
        raise Unrecognized(f"{name} has no model_index.json, which would say what it is")
    index = _read(root, "model_index.json")
    kind = index.get("_class_name")
    fitting = {arch: marks for arch, marks in _marks(plugins).items() if _fits(root, index, marks)}
    most = max(map(len, fitting.values()), default=0)
    best = [arch for arch, marks in fitting.items() if len(marks) == most]
    if not best:
        raise Unrecognized(f"{name} is made for {kind}, which belongs to no family here")
    if len(best) > 1:
        raise Unrecognized(f"{name} may be any of {', '.join(best)}")
    return best[0]


def _marks(plugins: Mapping[str, type[ModelPlugin]]) -> dict[str, dict[str, Any]]:
    """What families are recognized by, the first of several names of one family only."""
    found: dict[str, dict[str, Any]] = {}
    seen: set[type] = set()
    for arch, plugin in plugins.items():
        # not what a family inherits, which is another one's
        marks = vars(plugin).get("recognized_by")
        if marks and plugin not in seen:
            seen.add(plugin)
            found[arch] = marks
    return found


def _fits(root: Root, index: Mapping[str, Any], marks: Mapping[str, Any]) -> bool:
    if index.get("_class_name") != marks["_class_name"]:
        return False
    return all(_value(root, index, key) == wanted for key, wanted in marks.items())


def _value(root: Root, index: Mapping[str, Any], key: str) -> Any:
    part, dot, inner = key.partition(".")
    return _read(root, f"{part}/config.json").get(inner) if dot else index.get(key)


def _read(root: Root, file: str) -> dict[str, Any]:
    found: Path = root.file(file)
    try:
        return dict(json.loads(found.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(f"{found} cannot be read: {error}") from error
