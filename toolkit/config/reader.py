"""Reads a config: file -> text -> ${ENV} -> YAML -> shape -> overrides -> [name] -> Document.

What the keys mean is known further on, in process.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.config.document import Document
from toolkit.config.errors import ConfigError, KeyPath, Problem
from toolkit.config.reading.environment import Environment
from toolkit.config.reading.jsonc import blank_comments
from toolkit.config.reading.lookup import find_config, shorten
from toolkit.config.reading.overrides import apply_overrides
from toolkit.config.reading.shape import straighten
from toolkit.config.reading.text import Parsed, parse

NAME = "[name]"


def load(source: str | Path | Mapping[str, Any], name: str | None = None, overrides: Sequence[str] = ()) -> Document:
    """Read a config file, or the same as a mapping. `name` is what [name] stands for, `overrides` are KEY=VALUE.

    Raises ConfigError if there is nothing to read; what else is wrong is kept in `Document.problems`.
    """
    environment = Environment()
    parsed, shown = _read(source, environment)
    document = Document(parsed.data, shown, parsed.lines, secrets=parsed.secrets, environment=environment.used)
    for path, line, message in parsed.complaints:
        place = f"{shown}:{line}" if line else shown
        document.problems.append(Problem(place, document.shown(path), message))
    straighten(document, name)
    apply_overrides(document, overrides)
    _set_name(document, name)
    return document


def get_config(source: str | Path | Mapping[str, Any], name: str | None = None) -> dict[str, Any]:
    """The config as a plain dict, read but not validated: `toolkit.config.get_config` of ai-toolkit."""
    document = load(source, name)
    if document.problems:
        raise ConfigError(document.problems)
    return document.data


def _read(source: str | Path | Mapping[str, Any], environment: Environment) -> tuple[Parsed, str]:
    if isinstance(source, Mapping):
        parsed, shown = Parsed(_plain(source)), ""
        _fill(parsed, environment)
    else:
        file = find_config(source)
        shown = str(shorten(file))
        text = _decode(file.read_bytes(), shown)
        is_json = file.suffix.lower() in (".json", ".jsonc")
        if is_json:
            parsed = parse(blank_comments(text), shown, environment, "JSON")
        else:
            parsed = parse(text, shown, environment)
    if not isinstance(parsed.data, dict):
        reason = "is empty" if parsed.data is None else "is not a config: it must be a group of keys"
        raise ConfigError([Problem(shown, "", reason)])
    return parsed, shown


def _decode(raw: bytes, shown: str) -> str:
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(f"{shown}:{line}", "", "this is not UTF-8 text; save the file as UTF-8")]) from None


def _plain(value: Any) -> Any:
    """Mappings, tuples and paths from Python as a config file would have them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _strings(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Every text inside, with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings(item, (*path, index))


def _fill(parsed: Parsed, environment: Environment) -> None:
    """Put ${NAME} values into a config made in Python."""
    document = Document(parsed.data)
    for path, text in list(_strings(parsed.data)):
        if "${" not in text:
            continue
        hidden = environment.hide(text)
        try:
            document.set(path, environment.fill(hidden))
        except KeyError as error:
            parsed.complaints.append((path, 0, f"the environment variable {error.args[0]} is not set"))
        if hidden != text:
            parsed.secrets[path] = text


def _set_name(document: Document, name: str | None) -> None:
    """Replace [name] everywhere, as ai-toolkit does: by `name`, else by config.name."""
    config = document.data.get("config")
    if not isinstance(config, dict):
        return
    own = config.get("name")
    if own is None and name is not None:
        config["name"] = name
        document.origins[("config", "name")] = f"--name {name}"
    used = name if name is not None else own
    if used is None or used == NAME:
        return
    if not isinstance(used, str | int | float):
        return
    replaced = replace_in(document.data, NAME, str(used))
    if name is not None and own not in (None, name, NAME) and replaced == document.data:
        document.complain(
            ("config", "name"),
            f"--name {name} would change nothing, because the config nowhere says {NAME}; "
            f"--set name={name} gives the run this name",
        )
    document.data = replaced
    document.secrets = {path: text.replace(NAME, str(used)) for path, text in document.secrets.items()}


def replace_in(value: Any, sign: str, text: str) -> Any:
    """The value with `text` in place of `sign`, in all keys and texts of it."""
    if isinstance(value, str):
        return value.replace(sign, text)
    if isinstance(value, dict):
        return {key.replace(sign, text): replace_in(item, sign, text) for key, item in value.items()}
    return [replace_in(item, sign, text) for item in value] if isinstance(value, list) else value
