"""`aitk publish`: uploads a finished run to the Hugging Face Hub, by itself or after an upload that failed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn, get_args

import typer

from toolkit.config.sections.save import Included, is_repository, not_a_repository
from toolkit.reporting.hub_check import why_no_upload
from toolkit.reporting.hub_upload import NotUploaded, files_of, settings, upload
from toolkit.run_folder import RunFolder

DONE, FAILED, BAD_OPTIONS = 0, 1, 2
CHOICES = get_args(Included)


def publish(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, output/NAME.", show_default=False)],
    repo: Annotated[
        str | None, typer.Option("--repo", help="owner/name; default: save.hf_repo_id of the run's config.")
    ] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Of a new repository; default: save.hf_private.")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", help=f"{', '.join(CHOICES)}; can be repeated; default: save.hf_include, or samples."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be uploaded, and stop.")] = False,
) -> None:
    """Uploads the final weights, README.md and sample pictures in one commit. It can be repeated: what is there stays.

    Exit codes: 0 done, 1 the upload failed, 2 it cannot work like this.
    """
    saved = settings(folder)
    repository = repo or str(saved.get("hf_repo_id") or "")
    is_private = bool(saved.get("hf_private")) if private is None else private
    wanted = include or list(saved.get("hf_include") or ["samples"])
    run = RunFolder(folder, folder.absolute().name)
    try:
        _check(repository, wanted)
        names = files_of(run, wanted)
    except (OSError, ValueError) as error:
        _fail(str(error), BAD_OPTIONS)
    if dry_run:
        print(f"to {repository}{', private if it is made' if is_private else ''}:")
        print(*(f"  {name}" for name in names), sep="\n")
        raise typer.Exit(DONE)
    if problem := why_no_upload(repository, is_private):
        _fail(problem, BAD_OPTIONS)
    try:
        address = upload(run, repository, is_private, wanted)
    except NotUploaded as error:
        _fail(str(error), FAILED)
    print(f"{len(names)} files: {address}")


def _check(repository: str, include: list[str]) -> None:
    """ValueError for options that cannot work."""
    if unknown := [name for name in include if name not in CHOICES]:
        raise ValueError(f"--include: there is no '{unknown[0]}' (known: {', '.join(CHOICES)})")
    if not repository or "$" in repository:
        raise ValueError("which repository? Name it with --repo owner/name")
    if not is_repository(repository):
        raise ValueError(f"--repo: {not_a_repository(repository)}")


def _fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(code)
