"""pydantic's errors as plain sentences, one per key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from toolkit.config.errors import KeyPath
from toolkit.config.names import suggestion

TYPES = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a group of keys",
    "model_type": "a group of keys",
    "model_attributes_type": "a group of keys",
}


@dataclass(frozen=True)
class Finding:
    """What is wrong at one key."""

    path: KeyPath
    message: str
    is_unknown: bool = False


def find(error: ValidationError, data: Any) -> list[Finding]:
    """The errors by key; `data` is what was validated."""
    by_path: dict[KeyPath, list[dict[str, Any]]] = {}
    for item in error.errors(include_url=False):
        by_path.setdefault(_path_in(data, item["loc"]), []).append(dict(item))
    found = []
    for path, items in by_path.items():
        # of the alternatives of a key, the one that got further says more
        if any(len(other) > len(path) and other[: len(path)] == path for other in by_path):
            continue
        found.append(Finding(path, _sentence(items), items[0]["type"] == "extra_forbidden"))
    return found


def shorten(value: Any) -> str:
    """A value as it is quoted in a message."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a group of keys"
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _path_in(data: Any, loc: tuple[int | str, ...]) -> KeyPath:
    """The key path; pydantic adds the names of alternatives, which are no keys."""
    path: list[str | int] = []
    for key in loc:
        if isinstance(data, Mapping):
            path.append(key)
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int):
            path.append(key)
            data = data[key] if key < len(data) else None
    return tuple(path)


def _sentence(items: list[dict[str, Any]]) -> str:
    wanted = list(dict.fromkeys(TYPES[item["type"]] for item in items if item["type"] in TYPES))
    if wanted:
        return f"must be {' or '.join(wanted)}, not {shorten(items[0]['input'])}{_quotes(wanted, items[0]['input'])}"
    return _reword(items[0])


def _quotes(wanted: list[str], given: Any) -> str:
    """What YAML made of a text without quotes."""
    if wanted == ["text"] and isinstance(given, Mapping):
        return "; text with a colon in it needs quotes"
    is_bracket = wanted == ["text"] and isinstance(given, list) and len(given) == 1
    return "; text that begins with [ needs quotes" if is_bracket else ""


def _reword(item: dict[str, Any]) -> str:
    kind, given, ctx = item["type"], item["input"], item.get("ctx", {})
    if kind == "value_error":
        return str(ctx["error"])
    if kind == "missing":
        return "missing; it is required"
    if kind == "literal_error":
        options = [option.strip("' ") for option in ctx["expected"].replace(" or ", ", ").split(",")]
        near = suggestion(given, options) if isinstance(given, str) else ""
        return f"{shorten(given)} is not one of {', '.join(options)}{near}"
    if kind == "string_too_short":
        return "must not be empty"
    limit = _limit(ctx)
    return f"must be {limit}, not {shorten(given)}" if limit else _count(ctx) or str(item["msg"])


def _limit(ctx: dict[str, Any]) -> str:
    for key, words in (("gt", "more than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most")):
        if key in ctx:
            return f"{words} {ctx[key]:g}"
    return ""


def _count(ctx: dict[str, Any]) -> str:
    for key, words in (("min_length", "at least"), ("max_length", "at most")):
        if key in ctx:
            return f"must have {words} {ctx[key]} {'entry' if ctx[key] == 1 else 'entries'}"
    return ""
