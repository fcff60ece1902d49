"""`aitk slurm profile`: what a cluster wants of every job, written down once."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
import yaml

from toolkit.atomic import write_text
from toolkit.config import ConfigError, Document
from toolkit.config.launch import LAUNCH, read_launcher
from toolkit.config.reading.text import Loader, parse_value
from toolkit.launch.profiles import DEFAULT, NOT_IN_PROFILES, profile_folder, profile_names, profile_path, read_profile

BAD_OPTIONS = 2

slurm = typer.Typer(
    help="Work with SLURM clusters: profiles of sites.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@slurm.callback()
def _group() -> None:
    """Work with SLURM clusters: profiles of sites."""


@slurm.command()
def profile(
    name: Annotated[str | None, typer.Argument(help="Its name; `default` holds for configs that name none.")] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Write a key of `launch`: partition=gpu, env.NCCL_DEBUG=INFO."),
    ] = None,
) -> None:
    """Without a name: lists the profiles. With one: shows it, or with --set makes or changes it.

    Exit codes: 0 done, 2 there is no such profile, or something is wrong with it.
    """
    if name is None and not values:
        print("\n".join(_listing()))
        return
    try:
        if values:
            _change(name or DEFAULT, values)
        path = profile_path(name or DEFAULT)
        found = read_profile(name or DEFAULT)
        assert found is not None
        if problems := [str(problem) for problem in found.problems] or _problems(found.data, str(path)):
            raise ValueError("\n".join(problems))
    except (ValueError, ConfigError, OSError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD_OPTIONS) from None
    print(f"# {path}")
    print(path.read_text(encoding="utf-8"), end="")


def _listing() -> list[str]:
    names = profile_names()
    if names:
        return [f"{profile_folder()}:", *(f"  {name}" for name in names)]
    return [
        f"there are no profiles in {profile_folder()}; make one with, say,",
        "  aitk slurm profile default --set account=ACCOUNT --set partition=gpu --set time=24:00:00",
    ]


def _change(name: str, values: list[str]) -> None:
    path = profile_path(name)
    data: dict[str, Any] = {}
    if path.is_file():
        read_profile(name)  # says what is wrong with the file as a whole
        data = yaml.load(path.read_text(encoding="utf-8-sig"), Loader) or {}
    place = str(path) if _problems(data, "") else "--set"
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set {text}: must have the form KEY=VALUE, such as partition=gpu")
        if key.strip() in NOT_IN_PROFILES:
            raise ValueError(f"--set {text}: '{key.strip()}' says nothing in a profile; leave it out")
        _put(data, key.strip().split("."), value)
    if problems := _problems(data, place):
        raise ValueError("\n".join(problems))
    write_text(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def _put(data: dict[str, Any], keys: list[str], text: str) -> None:
    for key in keys[:-1]:
        inner = data.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ValueError(f"'{key}' is a plain value and has no keys")
        data = inner
    try:
        data[keys[-1]] = parse_value(text)
    except ConfigError:  # a text that only looks like YAML, or refers to the environment: kept as it is
        data[keys[-1]] = text


def _problems(data: dict[str, Any], place: str) -> list[str]:
    """What is wrong with the keys of a profile."""
    # the profile itself is what is checked, so no other one may be filled in below it
    document = Document({"config": {"launch": {**data, "type": "slurm"}}}, place)
    read_launcher(document, with_site=False)
    return [str(problem).replace(".".join(map(str, LAUNCH)) + ".", "") for problem in document.problems]
