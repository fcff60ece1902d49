"""A short command as a job of one process: the same keys, checks and messages as a config file with these values."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from jobs import get_job
from toolkit.cli.run import BAD_CONFIG, DONE, run_jobs
from toolkit.config import ConfigError
from toolkit.config.preflight import preflight


def run_process(
    kind: str,
    name: str,
    keys: Mapping[str, Any],
    dry_run: bool = False,
    overrides: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
) -> None:
    """Run the process with these keys, those that are None left out; ends the command with an exit code.

    `overrides` are KEY=VALUE of the user; `options` says for patterns of keys which option of the command they are.
    """
    process = {key: value for key, value in keys.items() if value is not None}
    config = {"job": kind, "config": {"name": name.strip(". ") or kind, "process": [process]}}
    try:
        job = get_job(config, overrides=list(overrides))
        problems = "\n".join(map(str, preflight(job)))
    except ConfigError as error:
        problems = str(error)
    if problems:
        print(in_options(problems, options or {}), file=sys.stderr)
        raise typer.Exit(BAD_CONFIG)
    if dry_run:
        print("\n".join(job.plan()))
        raise typer.Exit(DONE)
    raise typer.Exit(run_jobs([job], recover=False, log_file=None))


def in_options(problems: str, options: Mapping[str, str]) -> str:
    """Problems with keys, one a line, as problems with options; two keys of one option are told once."""
    problems = problems.replace("config.process.0.", "")
    for key, option in options.items():
        problems = re.sub(rf"(?m)^{key}(?=[:.])", option, problems)
    return "\n".join(dict.fromkeys(problems.replace("set `overwrite: true`", "add --force").splitlines()))
