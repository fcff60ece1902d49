"""`aitk check`: everything that can be known about a config without loading a model. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from toolkit.config import ConfigError, JobConfig, load, validate
from toolkit.config.preflight import preflight

BAD_CONFIG = 2


def check(
    configs: Annotated[list[str], typer.Argument(help="Files; `foo` also finds config/foo.yaml.", show_default=False)],
    name: Annotated[str | None, typer.Option("--name", "-n", help="What [name] in the config stands for.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value: train.steps=50.")
    ] = None,
    allow_unknown: Annotated[bool, typer.Option("--allow-unknown", help="Only warn about unknown keys.")] = False,
) -> None:
    """Checks keys, values, folders and disk space. Prints all problems, one line each; exit code 2 if there are any."""
    failed = False
    for config in configs:
        try:
            job = check_config(config, name, overrides or (), allow_unknown)
        except ConfigError as error:
            print(error, file=sys.stderr)
            failed = True
        else:
            print("\n".join(describe(job)))
    if failed:
        raise typer.Exit(BAD_CONFIG)


def check_config(config: str, name: str | None, overrides: Sequence[str], allow_unknown: bool) -> JobConfig:
    """The config, if nothing is wrong with it or with what it names on this machine."""
    job = validate(load(config, name, overrides), allow_unknown)
    problems = preflight(job)
    if problems:
        raise ConfigError(problems)
    return job


def describe(job: JobConfig) -> list[str]:
    """A few lines about a config that can run, and what is to be said about it."""
    lines = [f"{job.document.source}: ok: job {job.kind} '{job.name}'"]
    for process in job.processes:
        lines += [f"  process {process.type}", *(f"    {line}" for line in process.plan())]
    return lines + [f"note: {notice}" for notice in job.notices]
