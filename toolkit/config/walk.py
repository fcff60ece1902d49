"""Which section class is responsible for which place of a config; for suggestions, notices and overrides."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from toolkit.config.choice import Choice, base_of
from toolkit.config.errors import KeyPath
from toolkit.config.section import Section


@dataclass(frozen=True)
class Slot:
    """What a key holds: a section, a list (of sections, if there is one), any keys at all, or a plain value."""

    kind: Literal["section", "list", "any", "plain"]
    section: type[Section] | None = None


def slot(field: FieldInfo, value: Any) -> Slot:
    """What the key of `field` holds; `value`, as far as it is known, picks the plugin."""
    base = base_of(field.annotation)
    choice = next((mark for mark in field.metadata if isinstance(mark, Choice)), None)
    if choice is not None:
        try:
            return Slot("section", choice.section(base, value if isinstance(value, Mapping) else {}))
        except ValidationError:
            return Slot("section", base)
    if _is_section(base):
        return Slot("section", base)
    options = [base, *get_args(base)]
    if any(get_origin(option) in (list, tuple) for option in options):
        item = next((arg for option in options for arg in get_args(option) if _is_section(arg)), None)
        return Slot("list", item)
    return Slot("any" if base is Any or get_origin(base) is dict else "plain")


def takes_any_key(section: type[Section]) -> bool:
    """True for the config of a process that reads its keys itself."""
    return section.model_config.get("extra") == "allow"


def sections(section: type[Section], data: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, type[Section], Any]]:
    """Every section that `data` fills in, from the outside in: its path, its class, its keys."""
    if not isinstance(data, Mapping):
        return
    if not inspect.isabstract(section):  # the base stands in for a plugin that was not found
        yield path, section, data
    for key, field in section.model_fields.items():
        value = data.get(key)
        if value is None:
            continue
        inside = slot(field, value)
        if inside.section is None:
            continue
        if inside.kind == "list" and isinstance(value, list):
            for index, item in enumerate(value):
                yield from sections(inside.section, item, (*path, key, index))
        elif inside.kind == "section":
            yield from sections(inside.section, value, (*path, key))


def section_at(section: type[Section], data: Any, path: KeyPath) -> type[Section] | None:
    """The class responsible for the group at `path`."""
    found = next((cls for place, cls, _ in sections(section, data) if place == path), None)
    return found


def homes(section: type[Section], data: Any, path: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Every section that a config of this process may have, filled in or not: `datasets[]` and its class."""
    yield path, section
    for key, field in section.model_fields.items():
        value = data.get(key) if isinstance(data, Mapping) else None
        inside = slot(field, value)
        if inside.section is not None:
            mark = "[]" if inside.kind == "list" else ""
            yield from homes(inside.section, value, f"{path}.{key}{mark}".lstrip("."))


def first_unknown(section: type[Section], data: Any, path: KeyPath) -> tuple[int, list[str]] | None:
    """Where `path` leaves what the section knows: position in the path and the keys known there; None if nowhere."""
    here: Slot = Slot("section", section)
    for position, key in enumerate(path):
        if here.kind == "any":
            return None
        if here.kind == "plain":
            return position, []
        if here.kind == "list":
            count = len(data) if isinstance(data, list) else 0
            if not isinstance(key, int) or not 0 <= key < count:
                return position, [str(index) for index in range(count)]
            here = Slot("section", here.section) if here.section else Slot("plain")
            data = data[key]
            continue
        assert here.section is not None
        field = here.section.model_fields.get(str(key))
        if field is None:
            return None if takes_any_key(here.section) else (position, list(here.section.model_fields))
        data = data.get(key) if isinstance(data, Mapping) else None
        here = slot(field, data)
    return None


def _is_section(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Section)
