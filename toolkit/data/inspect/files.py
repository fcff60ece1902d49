"""The files of a data set's folder beside those that are trained: broken ones, other kinds, captions and their lack."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.inspect.facts import Broken, Filtered, SourceFacts
from toolkit.data.pictures.image import BrokenImage
from toolkit.data.records import Record, Records
from toolkit.data.scanning.scan import FROM_FILE_NAME, header_of, visible_files
from toolkit.data.sources.choice import open_source

LEFT_OUT = "; left out"


@dataclass
class FolderFiles:
    """What is found about one data set, by the names of the facts."""

    facts: SourceFacts
    broken: list[Broken] = field(default_factory=list)
    filtered: list[Filtered] = field(default_factory=list)
    missing_captions: list[str] = field(default_factory=list)
    empty_captions: list[str] = field(default_factory=list)
    broken_captions: list[Broken] = field(default_factory=list)


def told_broken(sections: Sequence[DatasetSection], problems: Sequence[str]) -> list[Broken]:
    """What the readers of sources that are no folders left out, from their own lines."""
    plain = tuple(f"{section.folder}{os.sep}" for section in sections if open_source(section.folder) is None)
    told = [line for line in problems if line.endswith(LEFT_OUT) and not line.startswith(plain)]
    if len(plain) == len(sections):
        return []
    return [Broken(*line.removesuffix(LEFT_OUT).partition(": ")[::2], "header") for line in told]


def folder_files(section: DatasetSection, records: Records, label: str, use_captions: bool = True) -> FolderFiles:
    """Sort the files of a data set; `label` stands before every name."""
    place, ending = section.folder, _caption_ending(section)
    found = FolderFiles(SourceFacts(str(place), 0, 0, 0, {}, ()))
    known, sidecars, num_videos, num_captions = set(), set(), 0, 0
    for row in range(len(records)):
        record = records[row]
        known.add(record.path)
        num_videos += record.clip is not None
        num_captions += bool(record.caption)
        sidecar = record.path.with_suffix(ending) if ending and record.part is None else None
        sidecars.add(sidecar)
        if use_captions and not record.caption:
            _sort_caption(found, record, sidecar, label)
    others, lone = Counter[str](), []
    for path in _files(section):
        if path in known or path in sidecars:
            continue
        name = label + path.relative_to(place).as_posix()
        if path.suffix.lower() in section.endings:
            _sort_unread(found, path, name, sidecars, ending)
        elif ending and path.suffix.lower() == ending.lower():
            lone.append((path, name))
        else:
            others[path.suffix.lower() or path.name] += 1
    found.facts = SourceFacts(
        str(place),
        len(records) - num_videos,
        num_videos,
        num_captions,
        dict(sorted(others.items())),
        tuple(name for path, name in lone if path not in sidecars),
    )
    return found


def _files(section: DatasetSection) -> Sequence[Path]:
    """The files of the folder by name, but those of folders that belong to its pictures; none for other sources."""
    if open_source(section.folder) is not None:
        return []
    without = [folder for folders in section.matched_folders.values() for folder in folders]
    return sorted(visible_files(section.folder, without), key=Path.as_posix)


def _caption_ending(section: DatasetSection) -> str:
    """The ending of caption files with its dot; empty if captions are not in files."""
    ending = section.caption_type or section.caption_ext
    return "" if ending == FROM_FILE_NAME else f".{ending.lstrip('.')}"


def _sort_unread(found: FolderFiles, path: Path, name: str, sidecars: set[Path | None], ending: str) -> None:
    """A file of a kind that is read, but no record: broken, or left out by the data set's keys."""
    if ending:
        # its caption is not a lone one
        sidecars.add(path.with_suffix(ending))
    try:
        found.filtered.append(Filtered(name, *header_of(str(path), videos=True)[0]))
    except BrokenImage as error:
        found.broken.append(Broken(name, error.reason, "header"))


def _sort_caption(found: FolderFiles, record: Record, sidecar: Path | None, label: str) -> None:
    """Why a picture has no caption."""
    name = label + record.name
    try:
        if sidecar is None:
            is_there = record.caption is not None
        else:
            is_there = sidecar.is_file() and sidecar.read_text(encoding="utf-8-sig") is not None
    except UnicodeDecodeError as error:
        found.broken_captions.append(Broken(name, f"{sidecar}: not UTF-8 (byte {error.start})", "caption"))
    except OSError as error:
        found.broken_captions.append(Broken(name, f"{sidecar}: {error.strerror or error}", "caption"))
    else:
        (found.empty_captions if is_there else found.missing_captions).append(name)
