"""Prompts, prefixes and suffixes with the placeholders {filename}, {folder}, {caption}, {trigger}."""

from __future__ import annotations

from pathlib import Path

from toolkit.config.sections.captioner import PLACEHOLDER


def values(path: Path, caption: str, trigger: str | None) -> dict[str, str]:
    """What the placeholders stand for at a picture: its name without ending, its folder's name, what it says so far."""
    return {
        "filename": path.stem,
        "folder": path.absolute().parent.name,
        "caption": caption,
        "trigger": trigger or "",
    }


def filled(template: str, known: dict[str, str]) -> str:
    """The text with known placeholders filled in, once; other braces, such as those of JSON, stay."""
    return PLACEHOLDER.sub(lambda match: known.get(match[1], match[0]), template)


def in_one_line(text: str) -> str:
    """A model's text as a caption: without line breaks and doubled spaces."""
    return " ".join(text.split())
