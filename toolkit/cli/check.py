"""`aitk check`: everything that can be known about a config without loading a model. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from toolkit.cli.options import AllowUnknown, Configs, Name, Overrides
from toolkit.config import ConfigError, JobConfig, load, validate
from toolkit.config.preflight import preflight
from toolkit.config.sweep import SweepConfig, is_sweep, validate_sweep

BAD_CONFIG = 2


def check(
    configs: Configs,
    name: Name = None,
    overrides: Overrides = None,
    allow_unknown: AllowUnknown = False,
) -> None:
    """Checks keys, values, folders and disk space. Prints all problems, one line each; exit code 2 if there are any."""
    failed = False
    for config in configs:
        try:
            lines = check_config(config, name, overrides or (), allow_unknown)
        except ConfigError as error:
            print(error, file=sys.stderr)
            failed = True
        else:
            print("\n".join(lines))
    if failed:
        raise typer.Exit(BAD_CONFIG)


def check_config(config: str, name: str | None, overrides: Sequence[str], allow_unknown: bool) -> list[str]:
    """A few lines about the config; ConfigError if something is wrong with it or with what it names on this machine."""
    document = load(config, name, overrides)
    sweep = validate_sweep(document, allow_unknown) if is_sweep(document) else None
    jobs = [validate(document, allow_unknown)] if sweep is None else sweep.configs
    if problems := list(dict.fromkeys(problem for job in jobs for problem in preflight(job))):
        raise ConfigError(problems)
    return describe(jobs[0]) if sweep is None else describe_sweep(sweep)


def describe_sweep(sweep: SweepConfig) -> list[str]:
    """A few lines about a sweep that can run."""
    from toolkit.launch.sweep import label

    _, *lines = describe(sweep.configs[0])
    source = sweep.document.source
    head = f"{source}: ok: sweep '{sweep.name}' of {len(sweep.points)} runs in {sweep.folder}; the first of them:"
    values = [f"  run {point.index}: {label(point.values)}" for point in sweep.points]
    return [head, *(line for line in lines if not line.startswith("note: ")), "the runs:", *values] + [
        f"note: {notice}" for notice in sweep.notices
    ]


def describe(job: JobConfig) -> list[str]:
    """A few lines about a config that can run, and what is to be said about it."""
    lines = [f"{job.document.source}: ok: job {job.kind} '{job.name}'"]
    for process in job.processes:
        lines += [f"  process {process.type}", *(f"    {line}" for line in process.plan())]
    return lines + [f"note: {notice}" for notice in job.notices]
