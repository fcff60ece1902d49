"""JSON with comments as YAML: both are read by one parser, which knows the line of each key."""

from __future__ import annotations

import re

# a string, or a comment, or white space that YAML refuses
PIECE = re.compile(r'"(?:[^"\\\n]|\\.)*"|//[^\n]*|/\*.*?\*/|\t', re.DOTALL)


def blank_comments(text: str) -> str:
    """The text with spaces for comments and tabs; every line stays where it is."""

    def blank(found: re.Match[str]) -> str:
        piece = found.group(0)
        return piece if piece.startswith('"') else re.sub(r"[^\n]", " ", piece)

    return PIECE.sub(blank, text)
