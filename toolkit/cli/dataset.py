"""`aitk dataset`: look into a data set before training on it, and change it. Imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

import typer

from toolkit.cli.dataset_edit import caption_from_filename, edit, repair, undo
from toolkit.config import ConfigError, load, validate
from toolkit.config.sections.dataset import DatasetSection

if TYPE_CHECKING:
    from toolkit.data.inspect import Inspection

FAILED = 2
JOBS = frozenset({".yaml", ".yml"})
DIVISOR = 16

dataset = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@runtime_checkable
class Trainer(Protocol):
    """The part of a process's config that says what it trains on."""

    datasets: Sequence[DatasetSection]
    model: Any
    train: Any
    trigger_word: str | None
    training_folder: str


@runtime_checkable
class Told(Protocol):
    """A process that can say what its model takes, from configuration files alone."""

    def facts(self) -> Any: ...


@dataset.callback()
def about() -> None:
    """Look into a data set before training on it, and change its captions."""


dataset.command(short_help="Change captions.")(edit)
dataset.command(short_help="Take back the newest change of captions.")(undo)
dataset.command(short_help="Copy pictures, the faulty ones written anew.")(repair)
dataset.command("caption-from-filename", short_help="Write captions from names.")(caption_from_filename)


@dataset.command(short_help="Show what training would make of it.")
def inspect(
    path: Annotated[
        Path, typer.Argument(help="A folder of pictures, another data set, or a job's YAML.", show_default=False)
    ],
    resolution: Annotated[
        list[int] | None, typer.Option("--resolution", "-r", min=16, help="May be given several times; default: 1024.")
    ] = None,
    divisor: Annotated[
        int | None, typer.Option(min=1, help="Sides are multiples of it; default: what the model needs, or 16.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Samples per batch; default: the job's, or 1.")] = None,
    caption_ext: Annotated[str, typer.Option(help="Ending of caption files; `filename`: the picture's name.")] = ".txt",
    trigger: Annotated[str | None, typer.Option(metavar="WORD", help="Trigger word; default: the job's.")] = None,
    num_frames: Annotated[int, typer.Option(min=1, help="Above 1: read videos too, as so many frames.")] = 1,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Of a tokenizer or a model; default: those of the job's model, if here."),
    ] = None,
    pixels: Annotated[
        bool, typer.Option("--pixels/--no-pixels", help="Decode pictures: finds broken pixels and look-alikes.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="All facts, for programs.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write one page with thumbnails. Replaces the file.")
    ] = None,
) -> None:
    """Show what training would make of pictures and captions, and what is wrong with them. Changes nothing.

    Of a job, its data sets with all their keys; options come before its values. Exit code 0 also if files are broken
    (see `broken` in the JSON), 2 if there is no data set to look at.
    """
    from rich.console import Console

    try:
        if path.suffix.lower() in JOBS:
            found = _inspect_job(path, resolution, divisor, batch_size, trigger, tokenizer, pixels)
        else:
            from toolkit.data.inspect.survey import RESOLUTION, inspect_folder

            found = inspect_folder(
                path,
                resolution or (RESOLUTION,),
                divisor or DIVISOR,
                batch_size=batch_size or 1,
                caption_ext=caption_ext,
                trigger=trigger,
                num_frames=num_frames,
                tokenizer=tokenizer,
                pixels=pixels,
                bar=_bar,
            )
        if html:
            from toolkit.data.inspect.page import make_page

            html.write_text(make_page(found), encoding="utf-8")
    except (OSError, ValueError, ConfigError) as error:
        print(f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error,
              file=sys.stderr)  # fmt: skip
        raise typer.Exit(FAILED) from None
    if as_json:
        print(found.to_json())
        return
    from toolkit.data.inspect.terminal import print_inspection

    print_inspection(found, Console(highlight=False))
    if html:
        print(f"\nwrote {html} ({html.stat().st_size / 1e6:.1f} MB)")


def _inspect_job(
    path: Path,
    resolutions: Sequence[int] | None,
    divisor: int | None,
    batch_size: int | None,
    trigger: str | None,
    tokenizer: Path | None,
    pixels: bool,
) -> Inspection:
    """The data sets of the first process of a job that trains."""
    from toolkit.data.cache.folder import cache_root
    from toolkit.data.datasets import read_datasets
    from toolkit.data.inspect.survey import inspect_items
    from toolkit.data.inspect.tokens import model_folder, text_lengths

    trainer = next((process for process in validate(load(path)).processes if isinstance(process, Trainer)), None)
    if trainer is None:
        raise ValueError(f"{path}: the job trains on no data set")
    # broken files are what is looked for here
    changes: dict[str, Any] = {"strict": False}
    changes |= {"resolution": list(resolutions)} if resolutions else {}
    changes |= {"trigger_word": trigger} if trigger else {}
    sections = [section.model_copy(update=changes) for section in trainer.datasets]
    problems: list[str] = []
    step, taken = _model_facts(trainer, sections, divisor, problems)
    model = trainer.model
    place = model.te_name_or_path or model.extras_name_or_path or model.name_or_path
    folder = tokenizer or model_folder(place, model.revision if place == model.name_or_path else None)
    try:
        lengths = text_lengths(folder) if folder else []
    except ValueError:
        if tokenizer:
            raise
        lengths = []
    use_captions = not trainer.train.unload_text_encoder
    cache = cache_root(Path(trainer.training_folder).expanduser() / path.stem, os.environ)
    items = read_datasets(
        sections,
        step,
        batch_size or trainer.train.batch_size,
        trainer.trigger_word,
        use_captions,
        taken,
        # what a run has learned about the files; no folder is made for it
        index=cache / "index" if cache.is_dir() else None,
        cache=cache,
    )
    return inspect_items(
        items,
        sections,
        step,
        path=str(path),
        lengths=lengths,
        use_captions=use_captions,
        pixels=pixels,
        problems=problems,
        bar=_bar,
    )


def _model_facts(
    trainer: Trainer, sections: Sequence[DatasetSection], divisor: int | None, problems: list[str]
) -> tuple[int, Any]:
    """The step of sizes, and what the model takes beside pictures; supposed where the model does not tell."""
    from toolkit.data.datasets import Pictures

    if divisor is None and isinstance(trainer, Told):
        try:
            facts = trainer.facts()
        except (OSError, ValueError) as error:
            problems.append(f"what the model needs is not known: {error}")
        else:
            return facts.multiple, facts
    if divisor is None:
        problems.append(f"the step of sizes is taken to be {DIVISOR}; --divisor says another")
    inpaints = any(section.inpaint_folders for section in sections)
    steers = any(section.control_folders or section.control_from_same_folder for section in sections)
    references = "channels" if inpaints else "tokens" if steers else "none"
    has_video = any(section.has_video for section in sections)
    return divisor or DIVISOR, Pictures(1 if has_video else 0, references)


def _bar(title: str, total: int) -> AbstractContextManager[Any]:
    """A bar beside the output, so that a pipe gets the facts alone."""
    from rich.console import Console

    from toolkit.data.inspect.pictures import quiet
    from toolkit.reporting.progress import bar

    console = Console(stderr=True)
    return bar(title, total, console) if console.is_terminal else quiet(title, total)
