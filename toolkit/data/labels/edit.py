"""Changes to captions: what is asked for as a function text -> text, and the caption files that it changes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.config.preflight import pictures
from toolkit.config.sections.dataset import ANIMATION_ENDINGS, IMAGE_ENDINGS, VIDEO_ENDINGS
from toolkit.data.caption import SEPARATOR
from toolkit.data.labels.filenames import caption_of
from toolkit.data.labels.journal import Change

LABELED = IMAGE_ENDINGS | ANIMATION_ENDINGS | VIDEO_ENDINGS
"""Endings of files that captions belong to."""
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Rule:
    """An edit of one caption; the parts happen in the order of the fields."""

    find: str = ""
    replace: str = ""
    is_regex: bool = False
    remove_tags: tuple[str, ...] = ()
    dedupe_tags: bool = False
    prefix: str = ""
    suffix: str = ""
    trigger: str = ""

    def check(self) -> None:
        """Raise ValueError for an edit that says nothing, or that cannot be done."""
        if not (self.find or self.remove_tags or self.dedupe_tags or self.prefix or self.suffix or self.trigger):
            raise ValueError("nothing to do: give --find, --remove-tag, --dedupe-tags, --prefix, --suffix or --trigger")
        if self.is_regex:
            try:
                # the second alternative matches here, so that groups in `replace` are looked at as well
                re.sub(f"(?:{self.find})|", self.replace, "")
            except (re.error, IndexError) as error:
                raise ValueError(f"--find or --replace is no regular expression: {error}") from error

    def apply(self, text: str) -> str:
        """The caption after the edit; space around it, such as the end of the last line, stays."""
        core = text.strip()
        head, tail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :] if core else ""
        if self.find:
            core = re.sub(self.find, self.replace, core) if self.is_regex else core.replace(self.find, self.replace)
        if self.remove_tags or self.dedupe_tags:
            core = self._without_tags(core)
        core = self.prefix + core + self.suffix
        if self.trigger and not has_word(core, self.trigger):
            core = f"{self.trigger} {core}".rstrip()
        return head + core + tail

    def _without_tags(self, core: str) -> str:
        kept: list[str] = []
        seen: set[str] = set()
        for part in SEPARATOR.split(core):
            tag = part.strip()
            if tag in self.remove_tags or (self.dedupe_tags and tag in seen):
                continue
            seen.add(tag)
            kept.append(part)
        # the tag that is first may not have been
        return ",".join(kept).strip()


@dataclass
class Found:
    """What was seen while captions were looked through."""

    num_captions: int = 0
    num_changed: int = 0
    num_emptied: int = 0
    num_without: int = 0
    """Pictures without a caption file."""
    num_kept: int = 0
    """Captions that stay because they are there already."""
    num_nameless: int = 0
    """Pictures whose names say nothing."""
    problems: list[str] = field(default_factory=list)


def has_word(text: str, word: str) -> bool:
    """Whether the word, or the mark that stands for it, is in the text as a whole word."""
    return "[trigger]" in text or re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def edited(folder: Path, rule: Rule, caption_ext: str, found: Found) -> Iterator[Change]:
    """The caption files below a folder that the rule changes; pictures without one are only counted."""
    for path in caption_files(folder, caption_ext):
        name = path.relative_to(folder).as_posix()
        try:
            before = path.read_bytes()
            text = before.removeprefix(BOM).decode("utf-8")
        except FileNotFoundError:
            found.num_without += 1
            continue
        except UnicodeDecodeError as error:
            found.problems.append(f"{name}: not UTF-8 (byte {error.start}); skipped")
            continue
        except OSError as error:
            found.problems.append(f"{name}: {error.strerror or error}; skipped")
            continue
        found.num_captions += 1
        new = rule.apply(text)
        if new != text:
            found.num_changed += 1
            found.num_emptied += not new.strip()
            yield Change(name, before, (BOM if before.startswith(BOM) else b"") + new.encode("utf-8"))


def named(folder: Path, caption_ext: str, overwrite: bool, found: Found) -> Iterator[Change]:
    """Captions made from the names of pictures, where there is none, or with `overwrite` everywhere."""
    for path, picture in _captions_of(folder, caption_ext):
        name = path.relative_to(folder).as_posix()
        text = caption_of(picture.name)
        if not text or not _is_text(text):
            why = "its name is not UTF-8" if text else "its name says nothing"
            found.num_nameless += 1
            found.problems.append(f"{picture.relative_to(folder).as_posix()}: {why}; skipped")
            continue
        try:
            before = path.read_bytes()
        except FileNotFoundError:
            before = None
        except OSError as error:
            found.problems.append(f"{name}: {error.strerror or error}; skipped")
            continue
        after = text.encode("utf-8") + b"\n"
        # an empty file is no caption
        if before is not None and before.strip() and not overwrite:
            found.num_kept += 1
        elif before != after:
            found.num_changed += 1
            yield Change(name, before, after)
        else:
            found.num_kept += 1


def caption_files(folder: Path, caption_ext: str) -> Iterator[Path]:
    """Where the captions of the pictures below a folder are or would be, each once."""
    return (path for path, _ in _captions_of(folder, caption_ext))


def _captions_of(folder: Path, caption_ext: str) -> Iterator[tuple[Path, Path]]:
    """(caption file, picture); of pictures that share a caption file, the first. ValueError if there is no picture."""
    seen: set[str] = set()
    for picture in _each_once(pictures(folder, LABELED)):
        path = picture.with_name(f"{picture.stem}.{caption_ext.lstrip('.')}")
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            yield path, picture
    if not seen:
        raise ValueError(f"{folder}: there is no picture or video in it ({', '.join(sorted(LABELED))})")


def _is_text(name: str) -> bool:
    """Whether a name has only bytes that are UTF-8; others come as surrogates, which no caption can hold."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _each_once(paths: Iterable[Path]) -> Iterator[Path]:
    """Files below linked folders come once; a link to a folder above would have them come without end."""
    seen: set[str] = set()
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        yield path
