"""`aitk cache`: what is cached, whether it is whole, what can go; and filling caches before a run."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Protocol, runtime_checkable

import typer

from toolkit.cli.options import AllowUnknown, AsJson, Configs, Name, Overrides
from toolkit.data.cache.folder import find_caches

if TYPE_CHECKING:
    from jobs import Job
    from toolkit.data.cache.contents import Entry

DONE, FAILED, BAD_USE, STOPPED = 0, 1, 2, 130
UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
Folder = Annotated[
    Path | None,
    typer.Option("--cache", help="The cache folder; default: $AITK_CACHE, or .aitk_cache beside the runs in output."),
]

cache = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@runtime_checkable
class FillsCaches(Protocol):
    """A process that can do what comes before its training, and stop."""

    def fill_caches(self) -> None: ...


@cache.callback()
def about() -> None:
    """Show, check, clear out or fill the caches. Everything in a cache is made again when it is needed."""


@cache.command(short_help="Show what is cached.")
def ls(
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Show what is cached: how many rows, how large, made by which model, and when it was last of use."""
    from toolkit.data.cache.contents import list_entries

    listed = {root: list_entries(root, time.time()) for root in _folders(folder)}
    if as_json:
        print(json.dumps([_summary(root, entries) for root, entries in listed.items()], indent=2))
    else:
        print("\n\n".join(_format(_summary(root, entries)) for root, entries in listed.items()))


@cache.command(short_help="Check every file for damage.")
def verify(
    folder: Folder = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the files that are damaged.")] = False,
) -> None:
    """Read every file of rows: format, index, checksum, and that no value is infinite or not a number.

    Exit codes: 0 all is well, 1 something is damaged.
    """
    from toolkit.data.cache import contents
    from toolkit.data.cache.check import check_shard
    from toolkit.data.cache.shard import OldShard

    num_whole = num_damaged = num_old = 0
    for root in _folders(folder):
        for path in contents.shards(root):
            try:
                problem = check_shard(path)
            except FileNotFoundError:
                continue
            except OldShard:
                num_old += 1
                continue
            if problem:
                num_damaged += 1
                failure = contents.delete(path) if delete else ""
                print(f"{path}: {problem}" + ("; deleted" if delete and not failure else ""))
                print(failure, end="\n" if failure else "", file=sys.stderr)
            else:
                num_whole += 1
    print(f"{num_whole} files are whole, {num_damaged} are damaged")
    if num_old:
        print(f"{num_old} files in the format of another version were not read; `aitk cache prune` removes them")
    if num_damaged and not delete:
        print("`aitk cache verify --delete` deletes what is damaged; it is made again when it is needed")
    raise typer.Exit(FAILED if num_damaged else DONE)


@cache.command(short_help="Delete what is of no use.")
def prune(
    folder: Folder = None,
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", min=0, help="Delete what was not used for so long.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="Delete what was used longest ago: 500MB, 50GB.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
) -> None:
    """Delete what is of no use: what killed runs left, damaged files, other versions, indexes of folders that are gone.

    With an option, more goes: rows, indexes and quantized weights, by the time when a run last used them. A run that is
    using them goes on.
    """
    from toolkit.data.cache.contents import choose, delete, list_entries

    max_bytes = None if max_size is None else read_size(max_size)
    now = time.time()
    entries = [entry for root in _folders(folder) for entry in list_entries(root, now)]
    num_bytes = num_deleted = 0
    for entry, reason in choose(entries, now, None if older_than is None else older_than * 86400, max_bytes):
        failure = "" if dry_run else delete(entry.path)
        if failure:
            print(failure, file=sys.stderr)
            continue
        print(f"{entry.path}: {_size(entry.num_bytes)}, {reason}")
        num_deleted, num_bytes = num_deleted + 1, num_bytes + entry.num_bytes
    kept = sum(entry.num_bytes for entry in entries) - num_bytes
    print(f"{'would delete' if dry_run else 'deleted'} {num_deleted}: {_size(num_bytes)}; {_size(kept)} stay")


@cache.command(short_help="Fill the caches of a job, and stop.")
def build(
    configs: Configs,
    name: Name = None,
    overrides: Overrides = None,
    allow_unknown: AllowUnknown = False,
) -> None:
    """Do what a run does before it loads the model that it trains: read the data, encode pictures and captions, stop.

    Exit codes: 0 done, 1 failed, 2 bad config, 130 stopped by the user.
    """
    from jobs import Sweep
    from toolkit.cli.run import read_jobs, report_failure

    found = read_jobs(configs, name, overrides or [], allow_unknown)
    if found is None:
        raise typer.Exit(BAD_USE)
    for job in (job for each in found for job in (each.jobs if isinstance(each, Sweep) else [each])):
        try:
            _fill(job)
        except KeyboardInterrupt:
            print(f"job '{job.name}' was interrupted; what was encoded is kept", file=sys.stderr)
            raise typer.Exit(STOPPED) from None
        # the top of the program, as in `aitk run`
        except Exception as error:
            raise typer.Exit(report_failure(job, error)) from None


def read_size(text: str) -> int:
    """Bytes that a text such as 50GB or 1.5 TiB means."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if match is None:
        _fail(f"--max-size: '{text}' is no size; write 500MB or 50GB")
    number, unit, binary = match.groups()
    power = " KMGT".index(unit.upper() or " ")
    return int(float(number) * (1024 if binary else 1000) ** power)


def _fill(job: Job) -> None:
    for notice in job.notices:
        print(f"note: {notice}")
    for plugin in job.processes:
        for first in plugin.preparations():
            first.build(job).run()
        process = plugin.build(job)
        if isinstance(process, FillsCaches):
            process.fill_caches()
            print(f"job '{job.name}': its caches are filled")
        else:
            print(f"job '{job.name}': a process of type {plugin.type} keeps no caches")


def _folders(chosen: Path | None) -> list[Path]:
    """The caches that a command is for; ends the program if there is none."""
    if chosen is not None and not chosen.is_dir():
        _fail(f"--cache: {chosen} is no folder")
    found = [chosen] if chosen else find_caches(Path(), os.environ)
    if not found:
        print("there is no cache here: neither $AITK_CACHE nor .aitk_cache beside runs; name it with --cache")
        raise typer.Exit(DONE)
    return found


def _fail(text: str) -> NoReturn:
    print(text, file=sys.stderr)
    raise typer.Exit(BAD_USE)


def _summary(root: Path, entries: Iterable[Entry]) -> dict[str, Any]:
    """A cache as plain data: what is of one kind and made by one model together."""
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for entry in entries:
        key = (entry.kind, json.dumps(dict(entry.about), sort_keys=True), entry.useless)
        told = {"kind": entry.kind, "about": dict(entry.about), "useless": entry.useless}
        group = groups.setdefault(key, told | {"files": 0, "rows": None, "bytes": 0, "written": "", "used": 0.0})
        group["files"] += 1
        group["rows"] = group["rows"] if entry.num_rows is None else (group["rows"] or 0) + entry.num_rows
        group["bytes"] += entry.num_bytes
        group["written"] = max(group["written"], entry.written)
        group["used"] = max(group["used"], entry.used)
    return {
        "cache": str(root),
        "bytes": sum(group["bytes"] for group in groups.values()),
        "contents": [*groups.values()],
    }


def _format(summary: Mapping[str, Any]) -> str:
    """The same as text, a line for each group."""
    lines = [f"{summary['cache']}: {_size(summary['bytes'])}"]
    for group in summary["contents"]:
        rows = "" if group["rows"] is None else f"{group['rows']:,} rows"
        day = datetime.fromtimestamp(group["used"]).strftime("%Y-%m-%d")
        told = group["useless"] or ", ".join(f"{name} {text}" for name, text in group["about"].items())
        line = (
            f"  {group['kind']:<12}{rows:>16}{_size(group['bytes']):>12}{group['files']:>7} files  used {day}  {told}"
        )
        lines.append(line.rstrip())
    return "\n".join(lines)


def _size(num_bytes: int) -> str:
    for unit in reversed(UNITS):
        if num_bytes >= UNITS[unit]:
            return f"{num_bytes / UNITS[unit]:.1f} {unit}B"
    return f"{num_bytes} B"
