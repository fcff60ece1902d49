"""Filters of a data set: which of its pictures are large enough and not too long."""

from __future__ import annotations

import numpy as np

from toolkit.data.records import Records


def select(
    records: Records, min_resolution: int | None, max_aspect: float | None, folder: str, problems: list[str]
) -> Records:
    """The records that pass the filters; the others are counted and the first is named in `problems`."""
    widths, heights = records.widths.astype(np.int64), records.heights.astype(np.int64)
    small = widths * heights < (min_resolution or 0) ** 2
    long = np.maximum(widths, heights) > (max_aspect or np.inf) * np.minimum(widths, heights)
    reasons = {
        f"have fewer than {min_resolution} x {min_resolution} pixels (min_resolution)": small,
        f"are longer than {max_aspect or 0:g} : 1 (max_aspect)": long & ~small,
    }
    for reason, rows in reasons.items():
        if rows.any():
            first = records[int(np.flatnonzero(rows)[0])]
            problems.append(
                f"{folder}: {rows.sum()} of {len(records)} pictures {reason}; left out "
                f"(first: {first.name}, {first.width} x {first.height})"
            )
    dropped = small | long
    if dropped.all():
        raise ValueError(f"{folder}: no picture is left; lower min_resolution, or raise max_aspect")
    return records.chosen(np.flatnonzero(~dropped)) if dropped.any() else records
