"""The command line: names the commands, imports the one that is called, turns its outcome into an exit code."""

from __future__ import annotations

import importlib
from inspect import cleandoc
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

# name -> help; the command is the function, or the group of commands, of that name in toolkit/cli/<name>.py
COMMANDS = {
    "run": "Do the jobs of one or more config files, one after another.",
    "status": "Show how runs stand: here, in the background, on a cluster.",
    "logs": "Show what a run prints, and follow it.",
    "cancel": "Have runs save and stop.",
    "compare": "Compare runs, such as those of a sweep: a table, and one picture of their samples.",
    "check": "Check config files without running them.",
    "init": "Write a commented starter config.",
    "schema": "Print the JSON Schema of a config, for editors.",
    "ls": "List what a config can name, and which extension brings it.",
    "generate": "Make pictures with a model, and with LoRAs if you like.",
    "caption": "Write captions for the pictures of a folder.",
    "lora": "Look into LoRA files; convert, merge, resize, extract, verify them.",
    "publish": "Upload a finished run to the Hugging Face Hub.",
    "dataset": "Look into a data set before training on it, and change its captions.",
    "cache": "Show, check, clear out or fill the caches.",
    "slurm": "Work with SLURM clusters: profiles of sites.",
    "doctor": "Show versions and devices, and say what is missing.",
}


class LazyCommands(TyperGroup):
    """Commands are listed from the table above; only the called one is imported, so that --help stays fast."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The called command, imported."""
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = load_command(args[0])
        return super().resolve_command(ctx, args)


def load_command(name: str) -> Any:
    """Import the function or group of a command and make a command of it."""
    function = getattr(importlib.import_module(f"toolkit.cli.{name}"), name)
    if isinstance(function, typer.Typer):
        return typer.main.get_command(function)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, help=COMMANDS[name] + "\n\n" + cleandoc(function.__doc__ or ""))(function)
    return typer.main.get_command(app)


def make_app() -> typer.Typer:
    """The `aitk` command with all its sub-commands."""
    app = typer.Typer(
        cls=LazyCommands,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name, text in COMMANDS.items():
        app.command(name, help=text)(_unloaded)
    return app


def run_command_line(arguments: list[str]) -> int:
    """Run `aitk ARGUMENTS` and return the exit code."""
    try:
        make_app()(arguments, prog_name="aitk")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _unloaded() -> None:
    """Stands for a command in the list until it is called."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from toolkit.cli.project import read_project

        print(f"aitk {read_project()['version']}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train, generate with and edit diffusion models: one YAML file describes a job, `aitk run` does it."""
