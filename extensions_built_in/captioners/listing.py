"""Which pictures of a folder get a caption, and why others do not. Reads captions, opens no picture, needs no torch.

A picture has an accurate caption if that is readable as UTF-8 and not empty; such a one is left alone unless
`recaption` is set. A caption that cannot be read is left alone too: it is the user's, and may be worth repairing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from toolkit.captioning.captions import Captions, JsonLines, Sidecars, UnreadableCaption
from toolkit.captioning.pictures import find_pictures
from toolkit.config.plugins import CaptionerPlugin

HAS_CAPTION = "has a caption"
NOT_READ = "its caption cannot be read"
SHARES = "shares its caption"
DONE_BEFORE = "written before the run was stopped"


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder."""

    root: Path
    todo: list[Path]
    skipped: list[tuple[Path, str, str]]
    """Path, kind of reason, the reason in full."""

    def name(self, path: Path) -> str:
        """A picture's name in messages and in the log."""
        return path.relative_to(self.root).as_posix()

    def describe(self) -> list[str]:
        """Counts, and what needs a look."""
        counts = Counter(kind for _, kind, _ in self.skipped)
        parts = [f"{count} left alone ({kind})" for kind, count in sorted(counts.items())]
        total = len(self.todo) + len(self.skipped)
        if not total:
            return [f"there is no picture in {self.root}"]
        lines = [f"pictures: {total} in {self.root}: {', '.join([*parts, f'{len(self.todo)} to caption'])}"]
        odd = [reason for _, kind, reason in self.skipped if kind in (NOT_READ, SHARES)]
        return [*lines, *(f"left alone: {reason}" for reason in odd[:10])]


def open_captions(section: CaptionerPlugin) -> Captions:
    """Where the captions go."""
    return JsonLines(Path(section.jsonl).expanduser()) if section.jsonl else Sidecars(section.caption_extension)


def list_pictures(
    section: CaptionerPlugin, captions: Captions | None = None, done: frozenset[str] = frozenset()
) -> Listing:
    """Sort the pictures; those named in `done` were captioned by the run that this one continues."""
    place = section.location
    captions = captions or open_captions(section)
    listing = Listing(place if place.is_dir() else place.parent, [], [])
    first: dict[str, Path] = {}
    for path in find_pictures(place, section.endings):
        other = first.setdefault(captions.place(path), path)
        kind, reason = _why_not(path, other, captions, section.recaption)
        if not kind and listing.name(path) in done:
            kind = reason = DONE_BEFORE
        if kind:
            listing.skipped.append((path, kind, reason))
        else:
            listing.todo.append(path)
    return listing


def _why_not(path: Path, other: Path, captions: Captions, recaption: bool) -> tuple[str, str]:
    """Why a picture gets no caption, as a kind and in full; ("", "") if it gets one."""
    if other != path:
        return SHARES, f"{path} shares its caption with {other.name}"
    if recaption:
        return "", ""
    try:
        return (HAS_CAPTION, HAS_CAPTION) if captions.read(path) else ("", "")
    except UnreadableCaption as error:
        return NOT_READ, f"{error}; repair it, or set recaption to replace it"
