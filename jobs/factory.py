"""Config -> Job: reads, checks, and picks the processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.job import Job
from jobs.kinds import KINDS, STANDARD, process_types
from toolkit import config as configs
from toolkit.registry import get_registry


def get_job(
    config: str | Path | Mapping[str, Any],
    name: str | None = None,
    overrides: Sequence[str] = (),
    allow_unknown: bool = False,
) -> Job:
    """The job of a config file, or of the same as a dict; raises ConfigError with everything that is wrong.

    `name` is what [name] stands for; `overrides` are texts KEY=VALUE.
    """
    document = configs.load(config, name, overrides)
    kind = document.get(("job",))
    if kind in KINDS and kind not in STANDARD and not process_types(kind, get_registry()):
        reason = f"no process types for job '{kind}' are installed yet; `aitk ls` shows what there is"
        raise configs.ConfigError([document.problem(("job",), reason)])
    checked = configs.validate(document, allow_unknown)
    notices = [str(notice) for notice in checked.notices]
    if checked.kind == "train":
        types = sorted({process.type for process in checked.processes if "extension" in process.jobs})
        notices += [f"job 'train' runs {kind} as job 'extension' does" for kind in types]
    return Job(checked.name, checked.kind, checked.meta, checked.document, checked.processes, notices)


def run_job(
    config: str | Path | Mapping[str, Any],
    name: str | None = None,
    overrides: Sequence[str] = (),
    allow_unknown: bool = False,
) -> Job:
    """Do the job of a config; returns it when it is done."""
    job = get_job(config, name, overrides, allow_unknown)
    job.run()
    return job
