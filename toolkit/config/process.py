"""One process of a document -> its plugin, typed; everything that is wrong goes to the document's problems."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from toolkit.config.choice import load_plugin
from toolkit.config.document import Document
from toolkit.config.errors import KeyPath
from toolkit.config.names import nearest
from toolkit.config.plugins import JOB_KINDS, ProcessPlugin
from toolkit.config.section import why_idle
from toolkit.config.spelling import matches
from toolkit.config.spellings import respell
from toolkit.config.unknown import explain_unknown
from toolkit.config.walk import sections, takes_any_key
from toolkit.config.wording import Finding, find, shorten
from toolkit.registry import get_registry

INHERITED = ("name", "device", "training_folder", "log_dir")
"""Keys of `config` that a process has too, and takes from there; a plugin adds its own with `of_config`."""


def read_process(document: Document, index: int, job: Any, allow_unknown: bool) -> ProcessPlugin | None:
    """The process at this place of the list; None if it cannot be made."""
    base: KeyPath = ("config", "process", index)
    plugin = _find_plugin(document, base, job)
    if plugin is None:
        return None
    handed: dict[KeyPath, KeyPath] = {}
    if not takes_any_key(plugin):
        respell(document, base, plugin)
        handed = _hand_down(document, base, plugin)
    process, found = _build(plugin, document.get(base))
    if allow_unknown and any(finding.is_unknown for finding in found):
        _leave_out(document, base, found)
        process, found = _build(plugin, document.get(base))
    wrong = {(*base, *finding.path) for finding in found}
    for finding in found:
        text, source = finding.message, handed.get((*base, *finding.path))
        if source in wrong or (source is not None and document.is_wrong(source)):
            continue
        if finding.is_unknown:
            text = explain_unknown(plugin, document.get(base), finding.path)
        document.complain((*base, *finding.path), text)
    _check_together(document, base, plugin, process, [finding.path for finding in found])
    if process is not None:
        _notice_idle(document, base, plugin)
        for path, message in process.differences():
            document.notice((*base, *path), message)
        process = process.completed()
    return process


def keys_of_config(document: Document) -> list[str]:
    """The keys that the processes of a document allow beside `process`."""
    processes = document.get(("config", "process"))
    found: dict[str, None] = {}
    for process in processes if isinstance(processes, list) else ():
        with suppress(ValueError):
            plugin = load_plugin("processes", str(process.get("type"))) if isinstance(process, dict) else None
            found |= dict.fromkeys(getattr(plugin, "of_config", ()))
    return list(found)


def _find_plugin(document: Document, base: KeyPath, job: Any) -> type[ProcessPlugin] | None:
    data = document.get(base)
    if not isinstance(data, dict):
        document.complain(base, f"must be a group of keys, not {shorten(data)}")
        return None
    kind = data.get("type")
    if not isinstance(kind, str):
        document.complain((*base, "type"), "missing: the type of the process")
        return None
    try:
        plugin: type[ProcessPlugin] = load_plugin("processes", kind)
    except ValueError as error:
        document.complain((*base, "type"), str(error))
        # of a name that is mistyped, the other keys can be checked all the same
        near = nearest(kind, get_registry().entries("processes"), 0.9)
        if near is None:
            return None
        plugin = load_plugin("processes", near)
    if job in JOB_KINDS and job not in plugin.jobs:
        document.complain((*base, "type"), f"{kind} runs under `job: {' or '.join(plugin.jobs)}`, not under {job}")
    return plugin


def _hand_down(document: Document, base: KeyPath, plugin: type[ProcessPlugin]) -> dict[KeyPath, KeyPath]:
    """Values that are set once and hold further inside; returns for each such place where its value is set."""
    handed: dict[KeyPath, KeyPath] = {}
    pairs: list[tuple[KeyPath, KeyPath]]
    above = (*INHERITED, *plugin.of_config)
    pairs = [(("config", key), (*base, key)) for key in above if key in plugin.model_fields]
    for source, pattern in plugin.handed_down.items():
        group, _, key = pattern.rpartition(".")
        pairs += [((*base, *source.split(".")), (*path, key)) for path in matches(document, base, group)]
    for old, new in pairs:
        if document.get(old) is not None and document.get(new) is None and isinstance(document.get(new[:-1]), dict):
            document.duplicate(old, new)
            handed[new] = old
    return handed


def _build(plugin: type[ProcessPlugin], data: Any) -> tuple[ProcessPlugin | None, list[Finding]]:
    try:
        return plugin.model_validate(data), []
    except ValidationError as error:
        return None, find(error, data)


def _leave_out(document: Document, base: KeyPath, found: Sequence[Finding]) -> None:
    for finding in found:
        if finding.is_unknown:
            document.notice((*base, *finding.path), "unknown key, left out")
            document.remove((*base, *finding.path))


def _check_together(
    document: Document, base: KeyPath, plugin: type[ProcessPlugin], process: ProcessPlugin | None, bad: list[KeyPath]
) -> None:
    """Report values that do not fit together; beside other errors too, so that one look shows everything."""
    rest = document.get(base) if process is not None else _without(document.get(base), bad)
    for path, section, data in sections(plugin, rest):
        try:
            built = section.model_validate(data)
        except ValidationError:
            continue
        for inner, message in built.contradictions():
            place = (*path, *inner)
            if not any(place[: len(wrong)] == wrong for wrong in bad):
                document.complain((*base, *place), message)


def _without(data: Any, paths: list[KeyPath]) -> Any:
    """The data without the values at these paths."""
    rest = copy.deepcopy(data)
    for path in sorted(paths, key=len, reverse=True):
        parent = rest
        for key in path[:-1]:
            inside = isinstance(parent, dict) and key in parent
            inside = inside or (isinstance(parent, list) and isinstance(key, int) and key < len(parent))
            parent = parent[key] if inside else None
        if isinstance(parent, dict):
            parent.pop(path[-1], None)
    return rest


def _notice_idle(document: Document, base: KeyPath, plugin: type[ProcessPlugin]) -> None:
    for path, section, data in sections(plugin, document.get(base)):
        for key in data:
            reason = why_idle(section, key, data) if key in section.model_fields else ""
            if reason:
                document.notice((*base, *path, key), f"has no effect: {reason}")
