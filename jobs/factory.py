"""Config -> Job: reads, checks, and picks the processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.job import Job
from jobs.sweep import Sweep
from toolkit import config as configs
from toolkit.launch.sweep import SweepFolder

if TYPE_CHECKING:
    from toolkit.config.job_config import JobConfig


def get_job(
    config: str | Path | Mapping[str, Any],
    name: str | None = None,
    overrides: Sequence[str] = (),
    allow_unknown: bool = False,
) -> Job:
    """The job of a config file, or of the same as a dict; raises ConfigError with everything that is wrong.

    `name` is what [name] stands for; `overrides` are texts KEY=VALUE.
    """
    return _job(configs.validate(configs.load(config, name, overrides), allow_unknown))


def get_jobs(
    config: str | Path | Mapping[str, Any],
    name: str | None = None,
    overrides: Sequence[str] = (),
    allow_unknown: bool = False,
) -> Job | Sweep:
    """The job of a config, or the jobs of one with `config.sweep`; raises ConfigError with everything that is wrong."""
    from toolkit.config.sweep import is_sweep, validate_sweep

    document = configs.load(config, name, overrides)
    if not is_sweep(document):
        return _job(configs.validate(document, allow_unknown))
    checked = validate_sweep(document, allow_unknown)
    jobs = [_job(each, with_notices=False) for each in checked.configs]
    notices = [str(notice) for notice in checked.notices]
    return Sweep(checked.name, SweepFolder(checked.folder), checked.points, jobs, notices)


def _job(checked: JobConfig, with_notices: bool = True) -> Job:
    """The job of a config that was checked."""
    notices = [str(notice) for notice in checked.notices] if with_notices else []
    if checked.kind == "train":
        types = sorted({process.type for process in checked.processes if "extension" in process.jobs})
        notices += [f"job 'train' runs {kind} as job 'extension' does" for kind in types]
    return Job(checked.name, checked.kind, checked.meta, checked.document, checked.processes, notices, checked.launcher)


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
