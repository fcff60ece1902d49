"""Which files of a data set are the same, and which only look the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from toolkit.data.inspect.facts import Alike, Picture
from toolkit.data.inspect.hashes import distance, near_groups
from toolkit.data.inspect.pictures import Bar, Gallery, Look, in_threads
from toolkit.data.records import Record


def exact_groups(gallery: Gallery, looks: Sequence[Look], bar: Bar) -> list[list[int]]:
    """Pictures with the same content. Only files of equal length are read for it."""
    lengths: dict[int, list[int]] = defaultdict(list)
    for index, look in enumerate(looks):
        lengths[look.length].append(index)
    asked = sorted(index for length, group in lengths.items() if length and len(group) > 1 for index in group)
    contents: dict[bytes, list[int]] = defaultdict(list)
    if asked:
        with bar("comparing files", len(asked)) as advance:
            for index, digest in zip(asked, in_threads(_digest, map(gallery.record, asked)), strict=True):
                contents[digest].append(index)
                advance(1)
    contents.pop(b"", None)
    return [group for group in contents.values() if len(group) > 1]


def exact_facts(gallery: Gallery, groups: Sequence[Sequence[int]]) -> tuple[tuple[Picture, ...], ...]:
    """Groups of copies as facts."""
    return tuple(tuple(gallery.picture(index) for index in group) for group in groups)


def near_facts(
    gallery: Gallery, hashes: Sequence[int], exact: Sequence[Sequence[int]]
) -> tuple[tuple[Alike, ...], ...]:
    """Groups of pictures that look the same; of exact copies only the first counts."""
    copies = {index for group in exact for index in group[1:]}
    # 0 is in no group
    groups = near_groups([0 if index in copies else value for index, value in enumerate(hashes)])
    return tuple(
        tuple(Alike(gallery.picture(index), distance(hashes[index], hashes[group[0]])) for index in group)
        for group in groups
    )


def _digest(record: Record) -> bytes:
    """Hash of the content; empty if it cannot be read."""
    try:
        return record.digest
    except OSError:
        return b""
