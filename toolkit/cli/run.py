"""`aitk run`: reads all configs, then does their jobs one after another."""

from __future__ import annotations

import os
import re
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from jobs import Job, Stopped, get_job
from toolkit.cli.log_file import LogFile
from toolkit.config import ConfigError
from toolkit.config.errors import Problem
from toolkit.config.preflight import preflight
from toolkit.reporting.failures import RunFailed, explain

DONE, FAILED, BAD_CONFIG, STOPPED = 0, 1, 2, 130
NAMED_KEY = re.compile(r"([a-z]\w*(?:\.\w+)*): (.+)", re.DOTALL)


def run(
    configs: Annotated[list[str], typer.Argument(help="Files; `foo` also finds config/foo.yaml.", show_default=False)],
    recover: Annotated[bool, typer.Option("--recover", "-r", help="Go on with the next job after a failure.")] = False,
    name: Annotated[str | None, typer.Option("--name", "-n", help="What [name] in the config stands for.")] = None,
    log: Annotated[Path | None, typer.Option("--log", "-l", help="Write what the console shows into a file.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value: train.steps=50.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and stop.")] = False,
    allow_unknown: Annotated[bool, typer.Option("--allow-unknown", help="Only warn about unknown keys.")] = False,
) -> None:
    """All configs are checked before the first job starts. ctrl+c finishes the step, saves, and ends.

    Exit codes: 0 done, 1 failed, 2 bad config, 130 stopped by the user.
    """
    with ExitStack() as stack:
        log_file = stack.enter_context(LogFile(log)) if log else None
        jobs = read_jobs(configs, name, overrides or [], allow_unknown)
        if jobs is None:
            raise typer.Exit(BAD_CONFIG)
        if dry_run:
            print("\n".join(line for job in jobs for line in job.plan()))
            raise typer.Exit(DONE)
        raise typer.Exit(run_jobs(jobs, recover, log_file))


def read_jobs(configs: list[str], name: str | None, overrides: list[str], allow_unknown: bool) -> list[Job] | None:
    """All jobs, or None after printing everything that is wrong with their configs."""
    jobs: list[Job] = []
    problems: list[str] = []
    for config in configs:
        try:
            job = get_job(config, name, overrides, allow_unknown)
        except ConfigError as error:
            problems.append(str(error))
        else:
            problems += [str(problem) for problem in preflight(job)]
            jobs.append(job)
    print("\n".join(problems), end="\n" if problems else "", file=sys.stderr)
    return None if problems else jobs


def run_jobs(jobs: list[Job], recover: bool, log_file: LogFile | None) -> int:
    """Run in order, report each failure in one sentence; the exit code."""
    num_completed = num_failed = 0
    codes: set[int] = set()
    for job in jobs:
        try:
            job.run()
            num_completed += 1
        except Stopped as stop:
            print(f"job '{job.name}' was stopped: {stop}", file=sys.stderr)
            return STOPPED
        except KeyboardInterrupt:
            print(f"job '{job.name}' was interrupted; what was saved before is complete", file=sys.stderr)
            return STOPPED
        # The top of the program: whatever a process raises ends its job, and only its job.
        except Exception as error:
            num_failed += 1
            codes.add(report_failure(job, error, log_file))
            if not recover:
                break
    if len(jobs) > 1:
        _print_banner(num_completed, num_failed, len(jobs) - num_completed - num_failed)
    return min(codes, default=DONE)


def describe(error: BaseException) -> str:
    """An error as one sentence: what to do about it if that is known; else its text, with its class if it needs one."""
    known = str(error) if isinstance(error, RunFailed) else explain(error, {})
    if known is not None:
        return known
    text = " ".join(str(error).split()) or "no reason given"
    is_told = type(error) in (ValueError, RuntimeError) or type(error).__module__.partition(".")[0] == "toolkit"
    return text if is_told else f"{type(error).__name__}: {text}"


def blame(job: Job, error: BaseException) -> Problem | None:
    """The key of the config that an error names first: some mistakes show only when the model is known."""
    named = NAMED_KEY.match(str(error)) if isinstance(error, ValueError) else None
    if named is None:
        return None
    keys = tuple(int(key) if key.isdigit() else key for key in named[1].split("."))
    for index in range(len(job.processes)):
        path = ("config", "process", index, *keys)
        if job.document.get(path[:4]) is not None:
            return job.document.problem(path, " ".join(named[2].split()))
    return None


def report_failure(job: Job, error: Exception, log_file: LogFile | None = None) -> int:
    """Say why a job failed, at the line of the config if a key of it is to blame; returns the exit code."""
    problem = blame(job, error)
    trace = "".join(traceback.format_exception(error))
    print(f"job '{job.name}' failed: {problem or describe(error)}", file=sys.stderr)
    if os.environ.get("AITK_DEBUG", "0") not in {"", "0"}:
        print(trace, end="", file=sys.stderr)
    elif log_file is not None:
        log_file.write(trace)
    else:
        print("(AITK_DEBUG=1 shows where)", file=sys.stderr)
    return BAD_CONFIG if problem else FAILED


def _print_banner(num_completed: int, num_failed: int, num_skipped: int) -> None:
    counts = f" - {num_completed} completed job{'s' * (num_completed != 1)}"
    counts += f"\n - {num_failed} failure{'s' * (num_failed != 1)}"
    counts += f"\n - {num_skipped} not started" if num_skipped else ""
    print(f"========================================\nResult:\n{counts}\n========================================")
