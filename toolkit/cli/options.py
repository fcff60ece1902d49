"""Arguments and options that several commands have: the same name, type and help in each."""

from __future__ import annotations

from typing import Annotated

import typer

Configs = Annotated[list[str], typer.Argument(help="Files; `foo` also finds config/foo.yaml.", show_default=False)]
Name = Annotated[str | None, typer.Option("--name", "-n", help="What [name] in the config stands for.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value: train.steps=50.")
]
AllowUnknown = Annotated[bool, typer.Option("--allow-unknown", help="Only warn about unknown keys.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
