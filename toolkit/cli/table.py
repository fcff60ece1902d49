"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side, numbers to the right; one line per row."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    are_numbers = [all(_is_number(row[place]) for row in rows) for place in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(cells, widths, are_numbers, strict=True)
        )
        return "  ".join(padded).rstrip()

    return [line(headings), line(["-" * width for width in widths]), *map(line, rows)]


def _is_number(text: str) -> bool:
    try:
        float(text.rstrip("s%") or "0")
    except ValueError:
        return text == "-"
    return True
