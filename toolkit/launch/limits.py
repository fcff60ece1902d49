"""How SLURM writes limits: times, memory, and how many GPUs a free-text GRES asks for."""

from __future__ import annotations

import re

TIME = re.compile(r"\d+|\d+:\d{1,2}(:\d{1,2})?|\d+-\d{1,2}(:\d{1,2}){0,2}|UNLIMITED|INFINITE", re.IGNORECASE)
"""Minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S: as `sbatch --time` reads it."""
MEMORY = re.compile(r"\d+[KMGT]?", re.IGNORECASE)
GPUS = re.compile(r"gpu(?::(?:[^:,()]+:(\d+)|(\d+)|[^:,()=\s]+))?(?:\([^)]*\))?", re.IGNORECASE)
"""gpu, gpu:4, gpu:a100, gpu:a100:4, gpu:3090:4: one part of a list with commas."""


def seconds_of(time: str) -> int | None:
    """Seconds of a time limit of sbatch; None: there is none, which sbatch also writes as 0."""
    if not time[0].isdigit():
        return None
    days, _, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        hours, minutes, seconds = [*parts, 0, 0][:3]
        return int(days) * 86400 + hours * 3600 + minutes * 60 + seconds
    if len(parts) == 1:
        return parts[0] * 60 or None
    if len(parts) == 2:
        return parts[0] * 60 + parts[1]
    return parts[0] * 3600 + parts[1] * 60 + parts[2]


def gpus_in(gres: str) -> int | None:
    """How many GPUs of each machine a GRES asks for; None if it names none."""
    found = [match for part in gres.split(",") if (match := GPUS.fullmatch(part.strip().removeprefix("gres/")))]
    return sum(int(match[1] or match[2] or 1) for match in found) if found else None
