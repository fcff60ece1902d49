"""Configs of an unusual shape whose meaning is plain: each is put into the usual one, with one notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.config.document import Document

PROCESS_MARKS = ("train", "model", "datasets", "network", "training_folder")


def straighten(document: Document, name: str | None = None) -> None:
    """Bring a config into the shape job, config, config.process = a list."""
    data = document.data
    if "config" not in data and isinstance(data.get("type"), str) and any(key in data for key in PROCESS_MARKS):
        _wrap_process(document, name)
        data = document.data
    if "process" in data:
        config = data.get("config")
        if config is None:
            _wrap_top(document)
        elif isinstance(config, dict) and "process" not in config:
            document.notice(("process",), "read as config.process")
            document.move(("process",), ("config", "process"))
        data = document.data
    config = data.get("config")
    if not isinstance(config, dict):
        return
    if isinstance(config.get("process"), dict):
        document.notice(("config", "process"), "read as a list of one process")
        _shift(document, ("config", "process"), ("config", "process", 0))
        config["process"] = [config["process"]]
    if data.get("job") is None and isinstance(config.get("process"), list):
        document.notice((), "there is no `job:`; read as `job: extension`")
        data["job"] = "extension"


def _wrap_process(document: Document, name: str | None) -> None:
    """The file is one process object, pasted alone."""
    own = document.data.get("name")
    found = name or (own if isinstance(own, str) else None) or Path(document.source).stem or "unnamed"
    document.notice((), f"this is one process without `job:` and `config:`; read as job extension with name {found}")
    _shift(document, (), ("config", "process", 0))
    document.data = {"job": "extension", "config": {"name": found, "process": [document.data]}}


def _wrap_top(document: Document) -> None:
    """There is no `config:`; name, process and the like stand at the top."""
    document.notice(("process",), "read as config.process")
    inner: dict[str, Any] = {}
    for key in [key for key in document.data if key not in ("job", "meta")]:
        _shift(document, (key,), ("config", key))
        inner[key] = document.data.pop(key)
    document.data["config"] = inner


def _shift(document: Document, old: tuple[str, ...], new: tuple[str | int, ...]) -> None:
    """Rename the paths of marks without touching the data."""
    for marks in (document.lines, document.secrets, document.origins):
        moved: dict[Any, Any] = {
            (*new, *path[len(old) :]) if path[: len(old)] == old else path: mark
            for path, mark in marks.items()  # type: ignore[attr-defined]
        }
        marks.clear()
        marks.update(moved)
