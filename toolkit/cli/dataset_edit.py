"""`aitk dataset edit|undo|caption-from-filename|repair`: change captions so that it can be undone; copy pictures whole.

The commands are plain functions; toolkit/cli/dataset.py puts them into the group `dataset`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from toolkit.data.labels.edit import Found
    from toolkit.data.labels.journal import Change

FAILED = 2
NUM_SHOWN = 20
"""Files whose change is shown, and problems that are named, unless all are asked for."""

Folder = Annotated[Path, typer.Argument(help="Folder of pictures; sub-folders are read too.", show_default=False)]
CaptionExt = Annotated[str, typer.Option("--caption-ext", help="Ending of caption files.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and stop.")]
ShowAll = Annotated[bool, typer.Option("--all", help=f"Show every change, not the first {NUM_SHOWN}.")]


def edit(
    folder: Folder,
    find: Annotated[str, typer.Option("--find", help="Text to look for.", show_default=False)] = "",
    replace: Annotated[str, typer.Option("--replace", help="What stands there instead.", show_default=False)] = "",
    regex: Annotated[bool, typer.Option("--regex", help="--find is a regular expression of Python.")] = False,
    remove_tag: Annotated[
        list[str] | None, typer.Option("--remove-tag", help="A comma-separated part that goes; repeatable.")
    ] = None,
    dedupe_tags: Annotated[bool, typer.Option("--dedupe-tags", help="Keep equal parts once.")] = False,
    prefix: Annotated[str, typer.Option("--prefix", help="Put before every caption.", show_default=False)] = "",
    suffix: Annotated[str, typer.Option("--suffix", help="Put after every caption.", show_default=False)] = "",
    trigger: Annotated[
        str, typer.Option("--trigger", help="Word that is put in front where it is missing.", show_default=False)
    ] = "",
    caption_ext: CaptionExt = ".txt",
    dry_run: DryRun = False,
    show_all: ShowAll = False,
) -> None:
    """Change the caption files of a folder, in the order of these options; `aitk dataset undo` takes it back.

    Line ends, byte order marks and space around a caption stay. Captions that are not UTF-8 are named and skipped.
    Exit code 2: nothing was done.
    """
    from toolkit.data.labels.edit import Found, Rule, edited

    tags = tuple(tag.strip() for tag in remove_tag or [])
    rule = Rule(find, replace, regex, tags, dedupe_tags, prefix, suffix, trigger)
    try:
        rule.check()
        _check_folder(folder)
        found = Found()
        _change(folder, "edit", edited(folder, rule, caption_ext, found), dry_run, show_all)
    except (ValueError, OSError) as error:
        _fail(error)
    _print_problems(found, show_all)
    done = "would change" if dry_run else "changed"
    print(f"{found.num_changed} of {found.num_captions} captions {done}{_extras(found)}")


def caption_from_filename(
    folder: Folder,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace captions that are there.")] = False,
    caption_ext: CaptionExt = ".txt",
    log: Annotated[
        Path | None,
        typer.Option("--log", help="Write what became of every picture into this file.", show_default=False),
    ] = None,
    dry_run: DryRun = False,
    show_all: ShowAll = False,
) -> None:
    """Write captions from the names of pictures: `a_red-car (12).jpg` becomes `a red car`.

    Names that a camera gave, such as IMG_1234, say nothing and are skipped. `aitk dataset undo` takes it back.
    """
    from toolkit.data.labels.edit import Found, named

    found, lines = Found(), list[str]()
    try:
        _check_folder(folder)
        changes = _noted(named(folder, caption_ext, overwrite, found), lines)
        _change(folder, "caption-from-filename", changes, dry_run, show_all)
        if log is not None and not dry_run:
            log.parent.mkdir(parents=True, exist_ok=True)
            text = "\n".join([*lines, *found.problems, ""])
            # names that are not UTF-8 hold what no file can
            log.write_text(text, encoding="utf-8", errors="backslashreplace")
    except (ValueError, OSError) as error:
        _fail(error)
    _print_problems(found, show_all)
    done = "would be written" if dry_run else "written"
    kept = f"{found.num_kept} kept" + ("" if overwrite else " (--overwrite replaces them)") * bool(found.num_kept)
    print(f"{found.num_changed} captions {done}, {kept}, {found.num_nameless} names say nothing")


def undo(
    folder: Folder,
    force: Annotated[bool, typer.Option("--force", help="Put files back that were changed since, too.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="Only list what can be undone.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Take back the newest edit of a folder's captions; called again, the one before it."""
    from toolkit.data.labels import journal

    try:
        _check_folder(folder)
        known = journal.edits(folder)
        if list_only:
            print(*(f"{each.time}  {each.command}" for each in known), sep="\n", end="\n" if known else "")
            return
        if not known:
            raise ValueError(f"{folder}: there is no edit to undo")
        newest = known[-1]
        count = sum(1 for _ in newest.changes())
        outcome = journal.undo(folder, newest, force, dry_run)
    except (ValueError, OSError) as error:
        _fail(error)
    for name in outcome.changed_since[:NUM_SHOWN]:
        print(f"{name}: was changed since", file=sys.stderr)
    what = f"{newest.command} of {newest.time}"
    if dry_run:
        print(f"would undo: {what}, {count} files, {len(outcome.changed_since)} of them changed since")
    elif outcome.changed_since and not force:
        _fail(ValueError(f"{_files(len(outcome.changed_since))} changed after {what}; nothing is undone "
                         "(--force puts them back all the same)"))  # fmt: skip
    else:
        left = len(known) - 1
        print(f"undone: {what}, {outcome.num_written} files; {left} earlier edit{'s' * (left != 1)} can be undone")


def repair(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", help="New folder; the old one is only read.", show_default=False)],
    kind: Annotated[str, typer.Option("--format", help="auto, png or jpeg; auto keeps JPEG.")] = "auto",
    quality: Annotated[int, typer.Option("--quality", min=1, max=100, help="Of JPEGs.")] = 95,
    only_repaired: Annotated[bool, typer.Option("--only-repaired", help="Leave pictures out that are fine.")] = False,
    caption_ext: CaptionExt = ".txt",
) -> None:
    """Copy a data set to a new folder with faulty pictures written anew: cut short, wrongly named, turned by EXIF,
    CMYK, 16 bit, animated. Captions come along; what is beyond repair is named. Exit code 1: some of it was."""
    from toolkit.data.inspect.terminal import shown
    from toolkit.data.labels import repair as repairs

    try:
        if kind not in ("auto", "png", "jpeg"):
            raise ValueError(f"--format must be auto, png or jpeg, not {kind}")
        report, num_told = repairs.Report(), 0
        for report in repairs.repair(
            folder, out, caption_ext=caption_ext, kind=kind, quality=quality, only_repaired=only_repaired
        ):
            for each in report.repaired[num_told:]:
                print(shown(f"{each.name}: {', '.join(each.faults)} -> {each.new_name}"), flush=True)
            num_told = len(report.repaired)
        if not (report.repaired or report.num_copied or report.num_there or report.lost):
            raise ValueError(f"{folder}: there is no picture in it")
    except (ValueError, OSError) as error:
        _fail(error)
    print(
        *(f"{line}; beyond repair" for line in report.lost), sep="\n", end="\n" if report.lost else "", file=sys.stderr
    )
    there = f", {report.num_there} were there already" if report.num_there else ""
    print(
        f"{len(report.repaired)} pictures repaired, {report.num_copied} copied as they are, {len(report.lost)} beyond "
        f"repair, {report.num_captions} captions copied{there}: {out}"
    )
    if report.lost:
        raise typer.Exit(1)


def _change(folder: Path, command: str, changes: Iterable[Change], dry_run: bool, show_all: bool) -> None:
    """Do the changes with a journal, or show them."""
    from toolkit.data.labels import journal

    if dry_run:
        for number, change in enumerate(changes):
            if show_all or number < NUM_SHOWN:
                print("\n".join(_difference(change)))
            elif number == NUM_SHOWN:
                print("... (--all shows the rest)")
        return
    begun = journal.record(folder, command, changes)
    if begun is not None:
        outcome = journal.apply(folder, begun)
        for name in outcome.changed_since:
            print(f"{name}: was changed at the same time; left as it is", file=sys.stderr)


def _difference(change: Change) -> Iterator[str]:
    """The lines of a file that go and come."""
    from toolkit.data.inspect.terminal import shown

    yield f"{shown(change.name)}{' (new)' if change.before is None else ''}"
    old, new = ((text or b"").decode("utf-8-sig").splitlines() for text in (change.before, change.after))
    yield from (f"  {line}" for line in difflib.ndiff(old, new) if line[0] in "-+")


def _noted(changes: Iterable[Change], lines: list[str]) -> Iterator[Change]:
    """The same changes, with a line about each for the log."""
    for change in changes:
        text = (change.after or b"").decode("utf-8").strip()
        lines.append(f"{change.name}: {'written' if change.before is None else 'replaced'}: {text}")
        yield change


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")


def _extras(found: Found) -> str:
    """What else is worth knowing about an edit."""
    extras = []
    if found.num_emptied:
        extras.append(f"{found.num_emptied} of them are empty then")
    if found.num_without:
        extras.append(f"{_pictures(found.num_without)} no caption file")
    return "".join(f"; {extra}" for extra in extras)


def _print_problems(found: Found, show_all: bool) -> None:
    shown = found.problems if show_all else found.problems[:NUM_SHOWN]
    rest = len(found.problems) - len(shown)
    print(*shown, *([f"... and {rest} more (--all names them)"] if rest else []), sep="\n", end="\n" if shown else "",
          file=sys.stderr)  # fmt: skip


def _pictures(count: int) -> str:
    return f"{count} picture{' has' if count == 1 else 's have'}"


def _files(count: int) -> str:
    return f"{count} file{' was' if count == 1 else 's were'}"


def _fail(error: Exception) -> NoReturn:
    print(error, file=sys.stderr)
    raise typer.Exit(FAILED)
