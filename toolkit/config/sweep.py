"""`config.sweep` of a document -> one document per run, each with its values and its own folder."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.config.choice import load_plugin
from toolkit.config.document import Document
from toolkit.config.errors import ConfigError, KeyPath, Notice, Problem
from toolkit.config.job_config import JobConfig, in_order, validate
from toolkit.config.names import suggestion
from toolkit.config.reader import replace_in
from toolkit.config.reading.overrides import places_of, put
from toolkit.config.section import state_of
from toolkit.config.walk import takes_any_key
from toolkit.config.wording import shorten

SWEEP: KeyPath = ("config", "sweep")
INDEX = "[index]"
KINDS = ("grid", "zip", "list")
OUTPUT = "output"
Sources = Mapping[str, KeyPath]
"""Key of the config -> where in the document the value for one run stands."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    index: int
    values: Mapping[str, Any]
    """By key, as the sweep writes them."""
    document: Document
    """The config of this run alone."""


@dataclass(frozen=True)
class SweepConfig:
    """A sweep that can run."""

    name: str
    folder: Path
    """Holds a folder per run, named by its index."""
    points: tuple[Point, ...]
    configs: tuple[JobConfig, ...]
    """One per point."""
    document: Document
    notices: tuple[Notice, ...]


def is_sweep(document: Document) -> bool:
    """Whether a config stands for several runs."""
    return document.get(SWEEP) is not None


def validate_sweep(document: Document, allow_unknown: bool = False) -> SweepConfig:
    """The configs of all runs; raises ConfigError with everything that is wrong with any of them, each once."""
    document = document.copy()
    points = _expand(document)
    problems, notices = list(document.problems), list[Notice]()
    configs = []
    for point in points:
        try:
            configs.append(validate(point.document, allow_unknown))
            notices += configs[-1].notices
        except ConfigError as error:
            problems += error.problems
    if not points and not problems:
        problems.append(document.problem(SWEEP, "there is no run in it"))
    problems += [] if problems else _same(document, points, configs)
    if problems:
        raise ConfigError(in_order(problems))
    name = str(document.get(("config", "name")))
    folder = Path(_training_folder(document)).expanduser() / name
    return SweepConfig(name, folder, tuple(points), tuple(configs), document, tuple(in_order(notices)))


def _expand(document: Document) -> list[Point]:
    """The points; what is wrong with the sweep goes to the document's problems."""
    name = document.get(("config", "name"))
    if not isinstance(name, str | int | float):
        document.complain(("config", "name"), "missing: the name of the sweep (or give one with --name)")
        name = "sweep"
    places: dict[KeyPath, list[KeyPath]] = {}
    points = []
    for index, sources in enumerate(_sources(document)):
        inner = document.copy()
        inner.problems = []
        for source in sources.values():
            if source not in places:
                places[source] = _places(document, source)
            for place in places[source]:
                _put(inner, place, source)
        values = {key: replace_in(document.get(source), INDEX, str(index)) for key, source in sources.items()}
        points.append(Point(index, values, _own(inner, str(name), index)))
    return points


def _sources(document: Document) -> list[Sources]:
    """Of each point, where its values stand."""
    data = document.get(SWEEP)
    if not isinstance(data, dict):
        document.complain(SWEEP, f"must be a group with one of {', '.join(KINDS)}, not {shorten(data)}")
        return []
    for key in data:
        if key not in KINDS:
            document.complain((*SWEEP, key), f"unknown key{suggestion(str(key), KINDS)} (known: {', '.join(KINDS)})")
    kinds = [kind for kind in KINDS if data.get(kind) is not None]
    if len(kinds) != 1:
        if kinds or not document.problems:
            document.complain(SWEEP, f"must have one of {', '.join(KINDS)}" + (", not several" if kinds else ""))
        return []
    return _entries(document) if kinds[0] == "list" else _columns(document, kinds[0])


def _entries(document: Document) -> list[Sources]:
    """`list`: a group of keys and values per run."""
    path = (*SWEEP, "list")
    entries = document.get(path)
    if not isinstance(entries, list) or not entries:
        document.complain(path, "must be a list with a group of keys per run")
        return []
    found: list[Sources] = []
    for index, entry in enumerate(entries):
        if isinstance(entry, dict) and entry:
            found.append({str(key): (*path, index, key) for key in entry})
        else:
            document.complain((*path, index), f"must be a group of keys, not {shorten(entry)}")
    return found


def _columns(document: Document, kind: str) -> list[Sources]:
    """`grid` and `zip`: a list of values per key."""
    path = (*SWEEP, kind)
    columns = document.get(path)
    if not isinstance(columns, dict) or not columns:
        document.complain(path, "must be a group: the keys, each with a list of its values")
        return []
    lists: dict[str, list[KeyPath]] = {}
    for key, values in columns.items():
        if isinstance(values, list) and values:
            lists[str(key)] = [(*path, key, index) for index in range(len(values))]
        elif isinstance(values, dict):
            inside = next(iter(values), "...")
            document.complain((*path, key), f"must be a list of values; a key inside is written {key}.{inside}")
        else:
            document.complain((*path, key), f"must be a list of values, not {shorten(values)}")
    if kind == "zip":
        longest = max(map(len, lists.values()), default=0)
        for key, sources in lists.items():
            if len(sources) != longest:
                document.complain((*path, key), f"has {len(sources)} values where another key has {longest}")
        rows: Iterator[tuple[KeyPath, ...]] = zip(*lists.values(), strict=False)
    else:
        rows = itertools.product(*lists.values())
    return [dict(zip(lists, row, strict=True)) for row in rows] if lists else []


def _places(document: Document, source: KeyPath) -> list[KeyPath]:
    """Where the value at `source` goes; none, and a problem, if nothing has this key."""
    # the key of a list of values stands one level above each of them
    at = source if source[2] == "list" else source[:-1]
    key = str(at[-1])
    path: KeyPath = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    if why := _why_not(path):
        document.complain(at, why)
        return []
    scratch = document.copy()
    scratch.problems = []
    found = places_of(scratch, path, "")
    for problem in scratch.problems:
        document.complain(at, problem.message)
    for place in found:
        origin = document.origins.get(place, "")
        if origin.startswith("--set"):
            document.problems.append(Problem(origin, "", "has no effect, because the sweep sets this key"))
    return found


def _why_not(path: KeyPath) -> str:
    """Why a sweep cannot set this key; empty if it can."""
    inner = path[1:] if path[0] == "config" else path
    inner = inner[2:] if inner[0] == "process" else inner
    if inner and inner[0] in ("name", "training_folder"):
        return f"a sweep names the folders of its runs by itself; {INDEX} in a text stands for the number of the run"
    if inner and inner[0] in ("launch", "sweep"):
        return "cannot differ between the runs of a sweep"
    return ""


def _put(document: Document, place: KeyPath, source: KeyPath) -> None:
    """Give the key at `place` the value at `source`, which is where mistakes in it are told to be."""
    where = document.where(source)
    put(document, place, document.get(source), where)
    if document.get(place[:-1]) is not None:
        document.duplicate(source, place)
        document.origins[place] = where


def _own(document: Document, name: str, index: int) -> Document:
    """Make a config that is of one run alone: without the sweep, under its own name and in its own folder."""
    document.remove(SWEEP)
    _rename(document, ("config", "name"), name, f"{name}_{index}")
    processes = document.get(("config", "process"))
    for number in range(len(processes) if isinstance(processes, list) else 0):
        _settle(document, ("config", "process", number), name, index, is_alone=len(processes) == 1)
    document.data = replace_in(document.data, INDEX, str(index))
    document.secrets = {path: text.replace(INDEX, str(index)) for path, text in document.secrets.items()}
    return document


def _settle(document: Document, base: KeyPath, name: str, index: int, is_alone: bool) -> None:
    """Have a process write into the folder of its run."""
    data = document.get(base)
    folder = _folder_of(document, base)
    if not isinstance(data, dict) or folder is None:
        return
    is_named = data.get("name") is not None and not is_alone
    parts = [name, str(index)] if is_named else [name]
    own: KeyPath = (*base, "training_folder")
    above: KeyPath = ("config", "training_folder")
    if data.get("training_folder") is None and above in document.secrets:
        document.secrets[own] = document.secrets[above]
    _rename(document, own, folder, str(Path(folder, *parts)))
    if not is_named:
        _rename(document, (*base, "name"), "", str(index))


def _rename(document: Document, path: KeyPath, old: str, text: str) -> None:
    """Change a text; of one from the environment, the part that was added follows ${NAME}."""
    document.set(path, text)
    if path in document.secrets and old and text.startswith(old):
        document.secrets[path] += text[len(old) :]
    else:
        document.secrets.pop(path, None)


def _folder_of(document: Document, base: KeyPath) -> str | None:
    """`training_folder` of a process, where that means something to it."""
    data = document.get(base)
    if not isinstance(data, dict):
        return None
    try:
        plugin = load_plugin("processes", str(data.get("type")))
    except ValueError:
        return None
    given = data.get("training_folder")
    if takes_any_key(plugin):
        return str(given) if given is not None else None
    field = plugin.model_fields.get("training_folder")
    if field is None or state_of(field) != "works":
        return None
    found = given if given is not None else document.get(("config", "training_folder"))
    default = field.get_default()
    found = found if found is not None else default if isinstance(default, str) else None
    return None if found is None else str(found)


def _training_folder(document: Document) -> str:
    """Where the folder of the sweep is: beside the results of its first process that has a place for them."""
    count = len(document.get(("config", "process")) or ())
    folders = (_folder_of(document, ("config", "process", number)) for number in range(count))
    return next((folder for folder in folders if folder is not None), OUTPUT)


def _same(document: Document, points: Sequence[Point], configs: Sequence[JobConfig]) -> Iterator[Problem]:
    """Runs that come to the same: a value given twice, or a key that another one overrules."""
    seen: dict[str, int] = {}
    for point, config in zip(points, configs, strict=True):
        kept = [{**process.model_dump(), "name": None, "training_folder": None} for process in config.processes]
        first = seen.setdefault(repr(kept), point.index)
        if first != point.index:
            yield document.problem(SWEEP, f"runs {first} and {point.index} come to the same")
