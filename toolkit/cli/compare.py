"""`aitk compare`: runs side by side, as a table, as data for other programs, and as one picture of their samples."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.atomic import atomic_path
from toolkit.cli.options import AsJson
from toolkit.cli.table import format_table
from toolkit.config.names import suggestion
from toolkit.launch.queue import Queue
from toolkit.launch.record import read_status
from toolkit.launch.standing import standing
from toolkit.launch.sweep import NOT_STARTED, SweepFolder, brief, is_sweep_folder, state_in
from toolkit.reporting.compare import Outcome, is_run_folder
from toolkit.reporting.compare import compare as compare_runs

OUTPUT = Path("output")
MOST_SETTINGS = 6
"""Columns of keys in the terminal; all are in --json and --csv."""
LONGEST_CAPTION = 48
BAD = 2


def compare(
    runs: Annotated[list[str], typer.Argument(help="Folders of runs, or that of a sweep.", show_default=False)],
    sort: Annotated[str | None, typer.Option("--sort", help="Column to sort by; the least first.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The greatest first.")] = False,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Write a PNG: a row per prompt, a column per run.")
    ] = None,
) -> None:
    """A column for each key that differs between the runs; then their losses, steps, times and samples."""
    try:
        outcomes = sort_runs(read_runs(runs), sort, reverse)
        if sheet is not None:
            write_sheet(outcomes, sheet)
    except ValueError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD) from None
    rows = [outcome.row() for outcome in outcomes]
    if as_json:
        print(json.dumps(rows, indent=2, default=str))
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        print("\n".join(show(outcomes)))
        if sheet is not None:
            print(f"the samples side by side: {sheet}")


def read_runs(names: Sequence[str]) -> list[Outcome]:
    """What came of the runs that a user names. Raises ValueError."""
    folders = list(dict.fromkeys(folder for name in names for folder in find(name)))
    queue = Queue()
    states = {folder: state_of(folder, queue) for folder in folders}
    return compare_runs(folders, states, {folder: read_status(folder).get("step") for folder in folders})


def find(name: str) -> list[Path]:
    """The runs of a folder, or of the one of this name below output. Raises ValueError."""
    for folder in (Path(name), OUTPUT / name):
        if is_sweep_folder(folder):
            sweep = SweepFolder(folder)
            return [sweep.run_folder(index) for index in sweep.values() if is_run_folder(sweep.run_folder(index))]
        if is_run_folder(folder):
            return [folder]
    below = sorted(OUTPUT.iterdir()) if OUTPUT.is_dir() else []
    known = [path.name for path in below if is_sweep_folder(path) or is_run_folder(path)]
    hint = suggestion(Path(name).name, known) or (f" (known: {', '.join(known)})" if known else "")
    raise ValueError(f"{name} is no folder of a run or a sweep with a config, neither here nor below {OUTPUT}{hint}")


def state_of(folder: Path, queue: Queue) -> str:
    """How a run stands: in the words of who does it, or else of the sweep that it belongs to."""
    found = standing(folder, queue)
    if found is not None:
        return found.state
    return state_in(folder) or ("" if (folder / "metrics.jsonl").exists() else NOT_STARTED)


def sort_runs(outcomes: list[Outcome], column: str | None, reverse: bool) -> list[Outcome]:
    """In the order of a column; runs without a value come last. Raises ValueError."""
    if column is None:
        return outcomes[::-1] if reverse else outcomes
    columns = outcomes[0].row()
    full = [key for key in columns if key == column or key.endswith(f".{column}")]
    if not full:
        raise ValueError(f"there is no column {column}{suggestion(column, columns)} (there are {', '.join(columns)})")
    with_value = [outcome for outcome in outcomes if outcome.row()[full[0]] is not None]
    rest = [outcome for outcome in outcomes if outcome.row()[full[0]] is None]
    return sorted(with_value, key=lambda outcome: _rank(outcome.row()[full[0]]), reverse=reverse) + rest


def show(outcomes: Sequence[Outcome]) -> list[str]:
    """The table in the terminal: without columns that are empty, and with short keys where they are clear."""
    keys = list(outcomes[0].settings)
    shown = keys[:MOST_SETTINGS]
    rows = [outcome.row() for outcome in outcomes]
    columns = [key for key in rows[0] if key not in keys or key in shown]
    columns = [key for key in columns if any(row[key] is not None for row in rows)]
    cells = [[_cell(key, row[key]) for key in columns] for row in rows]
    lines = format_table([_heading(key) for key in columns], cells)
    if len(keys) > len(shown):
        lines.append(f"{len(keys) - len(shown)} more keys differ: --csv or --json has them all")
    return lines


def write_sheet(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write the newest samples of the runs side by side. Raises ValueError if there are none."""
    from toolkit.sampling.runs_sheet import runs_sheet

    headed = [(_caption(outcome), outcome.samples) for outcome in outcomes if outcome.samples is not None]
    parents = {outcome.folder.absolute().parent for outcome in outcomes}
    title = parents.pop().name if len(parents) == 1 else ""
    picture = runs_sheet([(caption, folder) for caption, folder in headed if folder is not None], title)
    if picture is None:
        raise ValueError("none of these runs has samples")
    with atomic_path(path) as temporary:
        picture.save(temporary, "PNG")


def _caption(outcome: Outcome) -> str:
    """The run, and the last word of each key with its value."""
    parts = [f"{key.rpartition('.')[2]} {brief(value)}" for key, value in list(outcome.settings.items())[:3]]
    return ": ".join(part for part in (outcome.name, ", ".join(parts)[:LONGEST_CAPTION]) if part)


def _rank(value: Any) -> tuple[bool, Any]:
    """Numbers before texts."""
    is_number = isinstance(value, int | float)
    return not is_number, value if is_number else str(value)


def _heading(key: str) -> str:
    return "time" if key == "seconds" else key


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "seconds":
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
    return f"{value:.4f}" if key in ("loss", "mean", "min", "validation") else brief(value)
