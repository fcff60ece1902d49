"""What to say about a key that its section does not have."""

from __future__ import annotations

from typing import Any

from toolkit.config.errors import KeyPath, join
from toolkit.config.names import nearest
from toolkit.config.section import Section, state_of
from toolkit.config.spellings import meaning_of
from toolkit.config.walk import homes, section_at


def explain_unknown(plugin: type[Section], data: Any, path: KeyPath) -> str:
    """One sentence about the unknown key at `path`: where it belongs, or which key is near."""
    key = str(path[-1])
    said = meaning_of(path)
    if said:
        return f"unknown key; {said}"
    own = section_at(plugin, data, path[:-1])
    near = _near(key, own) if own is not None else None
    places = [place for place in _places(plugin, data, key) if place != join(path)]
    hints = []
    if places:
        hints.append(f"belongs to {' or '.join(places[:2])}")
    elif not near:
        near = _near_elsewhere(plugin, data, key)
    if near:
        hints.append(f"did you mean '{near}'?")
    return "; ".join(["unknown key", *hints])


def _places(plugin: type[Section], data: Any, key: str) -> list[str]:
    """The keys of this name in other sections, those that do something first."""
    found = {}
    for place, section in homes(plugin, data):
        field = section.model_fields.get(key)
        if field is not None:
            found[f"{place}.{key}".lstrip(".")] = state_of(field) != "works"
    # a key of the process itself is at home nowhere else
    return sorted(found, key=lambda place: (found[place], place.count("."), place.startswith("first_sample")))


def _near_elsewhere(plugin: type[Section], data: Any, key: str) -> str | None:
    """The key of another section whose name is nearly the same."""
    keys = {name: place for place, section in homes(plugin, data) for name in section.model_fields}
    found = nearest(key, keys, 0.8)
    return f"{keys[found]}.{found}".lstrip(".") if found else None


def _near(key: str, section: type[Section]) -> str | None:
    """The key of the same section that was probably meant: nearly the same, or with one more word."""
    parts = [name for name in section.model_fields if name.endswith(f"_{key}") or name.startswith(f"{key}_")]
    return nearest(key, section.model_fields, 0.72) or (parts[0] if len(parts) == 1 else None)
