"""`aitk run`: reads all configs, then does their jobs one after another."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from jobs import Job, Stopped, Sweep, get_jobs
from toolkit.cli.launching import (
    Ended,
    Todo,
    chain,
    is_handed_over,
    launch_keys,
    launched,
    subject_of,
    worker_command,
)
from toolkit.cli.log_file import LogFile
from toolkit.cli.options import AllowUnknown, Configs, DryRun, Name, Overrides
from toolkit.cli.sweeping import check_sweep, swept
from toolkit.cli.unattended import leaving_when_told, note_begin, note_end, send_to_background
from toolkit.config import ConfigError
from toolkit.config.errors import Problem
from toolkit.config.preflight import preflight
from toolkit.launch.environment import LOST_PEERS, is_launched, lost_peers, on_cluster, own_rank
from toolkit.launch.launcher import Order
from toolkit.launch.requeue import after_stop, note_start
from toolkit.launch.sweep import RUNNING, record_own, state_after
from toolkit.reporting.failures import RunFailed, explain

DONE, FAILED, BAD_CONFIG, STOPPED = 0, 1, 2, 130
NAMED_KEY = re.compile(r"([a-z]\w*(?:\.\w+)*): (.+)", re.DOTALL)


def run(
    configs: Configs,
    recover: Annotated[bool, typer.Option("--recover", "-r", help="Go on with the next job after a failure.")] = False,
    name: Name = None,
    log: Annotated[Path | None, typer.Option("--log", "-l", help="Write what the console shows into a file.")] = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    allow_unknown: AllowUnknown = False,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=1, help="Use so many GPUs of this machine together.")
    ] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Submit to a SLURM cluster.")] = False,
    test_only: Annotated[bool, typer.Option("--test-only", help="Only ask SLURM when it would start.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Come back when the submitted job is done.")] = False,
    background: Annotated[bool, typer.Option("--background", help="Run without this terminal.")] = False,
) -> None:
    """All configs are checked before the first job starts. ctrl+c finishes the step, saves, and ends.

    Exit codes: 0 done, 1 failed, 2 bad config, 130 stopped by the user.
    """
    is_first = own_rank(os.environ) == 0
    with ExitStack() as stack:
        if not is_first:
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w", encoding="utf-8"))))
        stack.enter_context(leaving_when_told(os.environ))
        overrides = [*(overrides or []), *launch_keys(slurm, gpus)]
        jobs = read_jobs(configs, name, overrides, allow_unknown)
        if jobs is None:
            raise typer.Exit(BAD_CONFIG)
        is_here = is_launched(os.environ) or all(job.launcher is None for job in jobs)
        log_file = stack.enter_context(LogFile(log)) if log and is_here and is_first else None
        commands = [worker_command(config, name, overrides, allow_unknown, log) for config in configs]
        orders = [Order(command, test_only, wait) for command in commands]
        todo = [
            swept(job, order, lambda each: run_jobs([each], recover=False, log_file=log_file))
            if isinstance(job, Sweep)
            else launched(job, order)
            for job, order in zip(jobs, orders, strict=True)
        ]
        chain(todo)
        given = {"--gpus": gpus, "--background": background, "--test-only": test_only, "--wait": wait}
        if problem := misfit([option for option, value in given.items() if value], slurm, todo):
            print(problem, file=sys.stderr)
            raise typer.Exit(BAD_CONFIG)
        if dry_run:
            plans = zip(todo, jobs, strict=True)
            print("\n".join(line for work, job in plans for line in (*cards(job), *work.plan())))
            raise typer.Exit(DONE)
        # what has launched this process has asked the Hub already
        asked = [] if is_launched(os.environ) else jobs
        if problems := [str(problem) for job in asked for problem in check(job, online=True)]:
            print("\n".join(problems), file=sys.stderr)
            raise typer.Exit(BAD_CONFIG)
        if background:
            options = ["--recover"] if recover else []
            raise typer.Exit(send_to_background(todo, [*commands[0], *configs[1:], *options]))
        own = configs[0] if is_launched(os.environ) else ""
        record_own(own, os.environ, RUNNING)
        note_start(os.environ)
        code = run_jobs(todo, recover, log_file)
        record_own(own, os.environ, state_after(code))
        raise typer.Exit(code)


def misfit(options: Sequence[str], slurm: bool, todo: Sequence[Todo]) -> str:
    """Which of the options that were given does not fit what is to be done, and why; "" if all do."""
    if slurm and "--gpus" in options:
        return "--gpus is for this machine; with --slurm, say --set launch.gpus_per_node=N"
    num_handed_over = sum(map(is_handed_over, todo))
    if num_handed_over and "--background" in options:
        return "--background is for this machine; a cluster runs jobs without a terminal anyway"
    for option in ("--test-only", "--wait"):
        if option in options and num_handed_over < len(todo):
            return f"{option} is for jobs on a cluster; add --slurm, or leave it out"
    if {"--test-only", "--wait"} <= {*options}:
        return "--test-only submits nothing that --wait could wait for; leave one of them out"
    return ""


def read_jobs(
    configs: list[str], name: str | None, overrides: list[str], allow_unknown: bool
) -> list[Job | Sweep] | None:
    """All jobs and sweeps, or None after printing everything that is wrong with their configs."""
    jobs: list[Job | Sweep] = []
    problems: list[str] = []
    for config in configs:
        try:
            job = get_jobs(config, name, overrides, allow_unknown)
        except ConfigError as error:
            problems.append(str(error))
        else:
            problems += [str(problem) for problem in check(job, before=jobs)]
            jobs.append(job)
    print("\n".join(problems), end="\n" if problems else "", file=sys.stderr)
    return None if problems else jobs


def check(job: Job | Sweep, online: bool = False, before: Sequence[Job | Sweep] = ()) -> list[Problem]:
    """What keeps a job from being done; a file that a job `before` it writes need not be there yet."""
    to_come = [path for earlier in before for path in earlier.results()]
    if isinstance(job, Sweep):
        return check_sweep(job, online, to_come)
    return preflight(job, online, to_come)


def cards(job: Job | Sweep) -> list[str]:
    """The model cards that the processes of a job would upload, as far as they are known before; none of a sweep."""
    if isinstance(job, Sweep):
        return []
    texts = [card for process in job.processes if (card := process.card(job))]
    return [line for text in texts for line in ("model card (README.md), as far as it is known:", "", text)]


def run_jobs(todo: Sequence[Todo], recover: bool, log_file: LogFile | None) -> int:
    """Run in order, report each failure in one sentence; the exit code."""
    num_completed = num_submitted = num_failed = 0
    codes: set[int] = set()
    for work in todo:
        subject = subject_of(work)
        note_begin(work)
        try:
            work.run()
            if is_handed_over(work):
                num_submitted += 1
            else:
                note_end(work, "done")
                num_completed += 1
        except Stopped as stop:
            note_end(work, "stopped", str(stop))
            if own_rank(os.environ) == 0:
                print(f"job '{subject.name}' was stopped: {stop}", file=sys.stderr)
            return after_stop(os.environ) if on_cluster(os.environ) else STOPPED
        except KeyboardInterrupt:
            note_end(work, "stopped", "interrupted; what was saved before is complete")
            print(f"job '{subject.name}' was interrupted; what was saved before is complete", file=sys.stderr)
            return after_stop(os.environ, together=False) if on_cluster(os.environ) else STOPPED
        except Ended as ended:
            note_end(work, "stopped" if ended.code == STOPPED else "failed", str(ended))
            if ended.code == STOPPED:
                return STOPPED
            num_failed += 1
            codes.add(ended.code)
            if not recover:
                break
        # The top of the program: whatever a process raises ends its job, and only its job.
        except Exception as error:
            num_failed += 1
            note_end(work, "failed", describe(error))
            codes.add(report_failure(subject if isinstance(subject, Job) else subject.jobs[0], error, log_file))
            if not recover:
                break
    if len(todo) > 1:
        _print_banner(num_completed, num_submitted, num_failed, len(todo))
    return min(codes, default=DONE)


def describe(error: BaseException) -> str:
    """An error as one sentence: what to do about it if that is known; else its text, with its class if it needs one."""
    if lost_peers(error, os.environ):
        return "another process of this run has ended; the last lines that were printed say which"
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
    if lost_peers(error, os.environ):
        if own_rank(os.environ) == 0 and os.environ.get("AITK_LAUNCHED") != "local":  # that says it better
            print(f"job '{job.name}' failed: another one of its processes ended", file=sys.stderr)
        return LOST_PEERS
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


def _print_banner(num_completed: int, num_submitted: int, num_failed: int, num_all: int) -> None:
    num_skipped = num_all - num_completed - num_submitted - num_failed
    counts = f" - {num_completed} completed job{'s' * (num_completed != 1)}"
    counts += f"\n - {num_submitted} submitted" if num_submitted else ""
    counts += f"\n - {num_failed} failure{'s' * (num_failed != 1)}"
    counts += f"\n - {num_skipped} not started" if num_skipped else ""
    print(f"========================================\nResult:\n{counts}\n========================================")
