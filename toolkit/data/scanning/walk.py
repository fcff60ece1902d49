"""What lies below a folder: one pass over each folder finds pictures and captions, with the size and time of each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from toolkit.data.scanning.waiting import Threads
from toolkit.data.workers import Workers

if TYPE_CHECKING:
    import pyarrow as pa

ABSENT = (-1, -1)
"""The stamp of a file that is not there."""
AT_ONCE = 2000
"""So many files are looked at by one thread in one go."""
FOLDERS_AT_ONCE = 16
APART_FROM = 20_000
"""After so many files, processes look at the rest: they take turns at the interpreter no more."""


@dataclass(frozen=True)
class Kinds:
    """Which files are looked for."""

    endings: Collection[str]
    """Of pictures and videos, in lower case."""
    caption_ending: str = ""
    """What stands in place of a picture's ending in the name of its caption; "": there are no caption files."""
    counted: Collection[str] = frozenset()
    """Endings of files that are only counted."""
    skipped: Collection[str] = frozenset()
    """Names of folders that are not looked into, nor are hidden ones."""


@dataclass(frozen=True)
class Walk:
    """Pictures and videos below a folder, by their names."""

    names: pa.LargeBinaryArray
    """Paths below the folder, with forward slashes, in the bytes of the file system."""
    stamps: np.ndarray
    """int64 [N, 4]: bytes and mtime in ns of the file, then of its caption; -1 where there is none."""
    counted: Counter[str]
    """Files by their ending, where only counted."""
    problems: list[str]
    """Folders that cannot be read, and why."""


class Folder(NamedTuple):
    """A folder below the first one."""

    prefix: str
    """What its files' names begin with."""
    path: str
    real: str


@dataclass
class Listing:
    """What one folder holds."""

    prefix: str
    media: list[os.DirEntry[str]] = field(default_factory=list)
    captions: dict[str, os.DirEntry[str]] = field(default_factory=dict)
    """By the name of the picture without its ending."""
    folders: list[Folder] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    num_entries: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Found:
    """What some folders hold, in few large pieces."""

    text: np.ndarray
    """uint8: the names of all files, one after another."""
    ends: np.ndarray
    """int64 [N]: where each name ends."""
    stamps: np.ndarray
    folders: list[Folder]
    counted: Counter[str]
    problems: list[str]


Some = TypeVar("Some", Listing, Found)


def walk(folder: Path, kinds: Kinds, without: Iterable[Path] = (), num_workers: int = 8) -> Walk:
    """Look at all visible files below `folder`, but not below `without`; linked folders are followed once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names, stamps = [pa.array([], pa.large_binary())], [np.zeros((0, 4), np.int64)]
    counted: Counter[str] = Counter()
    problems: list[str] = []
    with Threads(num_workers) as threads, Workers(min(num_workers, os.cpu_count() or 1)) as workers:
        for found in _all_found(folder, kinds, without, threads, workers):
            offsets = np.concatenate([[0], found.ends]).astype(np.int64)
            buffers = [None, pa.py_buffer(offsets), pa.py_buffer(found.text)]
            names.append(pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(found.ends), buffers))
            stamps.append(found.stamps)
            counted.update(found.counted)
            problems += found.problems
    unsorted = pa.concat_arrays(names)
    order = pc.sort_indices(unsorted)
    return Walk(unsorted.take(order), np.concatenate(stamps)[order.to_numpy()], counted, problems)


def listed(folder: Path, kinds: Kinds, without: Iterable[Path] = ()) -> Iterator[Path]:
    """The paths of all visible files below `folder`, but not below `without`; linked folders are followed once."""
    for level in _levels(folder, without, lambda some: [_list(one, kinds) for one in some]):
        yield from (Path(entry.path) for listing in level for entry in listing.media)


def look(folders: Sequence[Folder], kinds: Kinds, threads: Threads | None = None) -> Found:
    """What some folders hold."""
    if threads is None:
        with Threads(FOLDERS_AT_ONCE) as threads:
            return look(folders, kinds, threads)
    listings = threads.map(_list, [(one, kinds) for one in folders], lambda listing: listing.num_entries)
    parts = [(listing, start) for listing in listings for start in range(0, len(listing.media), AT_ONCE)]
    looked_at = threads.map(_looked_at, parts, lambda part: len(part[0]))
    names = [name for some, _ in looked_at for name in some]
    return Found(
        np.frombuffer(b"".join(names), np.uint8),
        np.cumsum([len(name) for name in names], dtype=np.int64),
        np.concatenate([np.zeros((0, 4), np.int64), *(stamps for _, stamps in looked_at)]),
        [child for listing in listings for child in listing.folders],
        sum((listing.counted for listing in listings), Counter()),
        [listing.problem for listing in listings if listing.problem],
    )


def _all_found(
    folder: Path, kinds: Kinds, without: Iterable[Path], threads: Threads, workers: Workers
) -> Iterator[Found]:
    """What all folders hold, some at a time; by processes as soon as it proves to be much."""
    num_files = 0

    def look_at(level: Sequence[Folder]) -> Iterator[Found]:
        nonlocal num_files
        groups = [level[start : start + FOLDERS_AT_ONCE] for start in range(0, len(level), FOLDERS_AT_ONCE)]
        while groups and num_files < APART_FROM:
            found = look(groups.pop(0), kinds, threads)
            num_files += len(found.ends)
            yield found
        if groups:
            yield from workers.map(partial(look, kinds=kinds), groups, lambda group: group[0].path)

    yield from chain.from_iterable(_levels(folder, without, look_at))


def _levels(
    folder: Path, without: Iterable[Path], look_at: Callable[[Sequence[Folder]], Iterable[Some]]
) -> Iterator[Iterable[Some]]:
    """What `look_at` says of the folders, those at one depth after those above; by name, links last."""
    real = os.path.realpath(folder)
    # a data set may be its own folder of references
    seen = {os.path.realpath(path) for path in without} - {real}
    level = [Folder("", str(folder), real)]
    while level:
        # of several ways to one folder, the first
        unseen = {one.real: one for one in reversed(level) if one.real not in seen}
        seen |= unseen.keys()
        below: list[Folder] = []
        yield _noting(look_at([one for one in level if unseen.get(one.real) is one]), below)
        level = below


def _noting(found: Iterable[Some], below: list[Folder]) -> Iterator[Some]:
    for one in found:
        below += one.folders
        yield one


def _list(folder: Folder, kinds: Kinds) -> Listing:
    listing = Listing(folder.prefix)
    links: list[Folder] = []
    endings, ending, cut = tuple(kinds.endings), kinds.caption_ending, -len(kinds.caption_ending)
    try:
        with os.scandir(folder.path) as entries:
            for entry in entries:
                name = entry.name
                listing.num_entries += 1
                if name[0] == ".":
                    continue
                if _is_folder(entry):
                    if name not in kinds.skipped:
                        (links if _is_link(entry) else listing.folders).append(_below(folder, entry))
                elif name.endswith(endings) or name.lower().endswith(endings):
                    listing.media.append(entry)
                elif ending and name.endswith(ending):
                    listing.captions[name[:cut]] = entry
                elif (suffix := os.path.splitext(name)[1].lower()) in kinds.counted:
                    listing.counted[suffix] += 1
    except OSError as error:
        listing.problem = f"{folder.path}: {error.strerror or error}; left out"
    listing.folders = [*sorted(listing.folders), *sorted(links)]
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_link(entry: os.DirEntry[str]) -> bool:
    # Windows has kinds of links that only a look at the real path finds
    return os.name == "nt" or entry.is_symlink()


def _below(folder: Folder, entry: os.DirEntry[str]) -> Folder:
    # the real path of what is no link needs no look at the disk
    real = os.path.realpath(entry.path) if _is_link(entry) else os.path.join(folder.real, entry.name)
    return Folder(f"{folder.prefix}{entry.name}/", entry.path, real)


def _looked_at(listing: Listing, start: int) -> tuple[list[bytes], np.ndarray]:
    """Names and stamps of some files of a folder. Millions of files pass here, so little is done for each."""
    media = listing.media[start : start + AT_ONCE]
    stamps = np.full((len(media), 4), -1, np.int64)
    try:
        found = [entry.stat() for entry in media]
        stamps[:, 0] = [stat.st_size for stat in found]
        stamps[:, 1] = [stat.st_mtime_ns for stat in found]
    except OSError:
        stamps[:, :2] = [_stamp(entry) for entry in media]
    if captions := listing.captions:
        beside = [captions.get(entry.name.rpartition(".")[0]) for entry in media]
        rows = [row for row, entry in enumerate(beside) if entry is not None]
        stamps[rows, 2:] = np.array([_stamp(entry) for entry in beside if entry is not None]).reshape(-1, 2)
    prefix = os.fsencode(listing.prefix)
    return [prefix + os.fsencode(entry.name) for entry in media], stamps


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        found = entry.stat()
    except OSError:
        return ABSENT
    return found.st_size, found.st_mtime_ns
