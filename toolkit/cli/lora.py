"""`aitk lora`: look into a LoRA file, or write it in another program's key format."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.config.key_names import FORMATS, KeyNames
from toolkit.networks.keys.guess import Candidate, guess_family
from toolkit.networks.keys.summary import read_header, summarize
from toolkit.registry import PluginError, get_registry, nearest_names

FAILED = 2

lora = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
)


@lora.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A .safetensors file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the network, rank, alpha, base model, family, key format and header of a file. Reads no weights."""
    try:
        summary = summarize(file, list_candidates())
    except (OSError, ValueError) as error:
        fail(error)
    print(json.dumps(summary, indent=2) if as_json else format_summary(summary))
    if not summary["layers"]:
        fail(ValueError(f"{file}: no layer of a network is in it; is it a whole model?"))


@lora.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A .safetensors file.", show_default=False)],
    to: Annotated[str, typer.Option("--to", help=f"Key format: {', '.join(FORMATS)}.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The new file, or its folder; default: NAME_FORMAT.safetensors beside it."),
    ] = None,
    arch: Annotated[
        str | None, typer.Option("--arch", help="Model family, if the file does not tell; `aitk ls archs` lists them.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write the same weights under another program's names. The header is kept, alpha is multiplied in."""
    try:
        if to not in FORMATS:
            raise ValueError(f"--to: there is no key format '{to}'; known: {', '.join(FORMATS)}")
        target = out or file.with_name(f"{file.stem}_{to}.safetensors")
        if target.is_dir():
            target = target / f"{file.stem}_{to}.safetensors"
        if target.exists() and not force:
            raise ValueError(f"{target} exists and was not changed; name another file with -o, or add --force")
        names = find_names(file, arch)
        from toolkit.networks.keys.convert import convert_file

        done = convert_file(file, target, names, to)
    except (OSError, ValueError) as error:
        fail(error)
    if done.kept:
        print(f"note: {len(done.kept)} keys have no other names and are kept, e.g. {done.kept[0]}", file=sys.stderr)
    print(f"wrote {target}: {done.layers} layers")


def fail(error: Exception) -> Any:
    """Print the error and end with the exit code of a user's mistake."""
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    print(text, file=sys.stderr)
    raise typer.Exit(FAILED) from None


def list_candidates() -> list[Candidate]:
    """The names of every family that loads, families with the same names together."""
    registry = get_registry()
    families: dict[KeyNames, list[tuple[str, str]]] = {}
    for arch in registry.entries("models"):
        try:
            plugin = registry.load("models", arch)
        except (PluginError, ValueError) as error:
            print(f"note: arch '{arch}' is left out: {error}", file=sys.stderr)
            continue
        names = getattr(plugin, "key_names", KeyNames())
        if names.layers:
            families.setdefault(names, []).append((arch, getattr(plugin, "example", "")))
    return [
        Candidate(names, tuple(arch for arch, _ in found), tuple(example for _, example in found))
        for names, found in families.items()
    ]


def find_names(file: Path, arch: str | None) -> KeyNames:
    """The names of the family that `arch` names or the file tells."""
    registry = get_registry()
    if arch is not None:
        if arch not in registry.entries("models"):
            near = nearest_names(arch, registry.entries("models"))
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(registry.entries('models'))}"
            raise ValueError(f"--arch: there is no arch '{arch}'; {hint}")
        return getattr(registry.load("models", arch), "key_names", KeyNames())
    with file.open("rb") as opened:
        tensors, header, _ = read_header(opened, file)
    candidates = list_candidates()
    guess = guess_family(header, tensors, candidates)
    if len(guess.candidates) == 1:
        return guess.candidates[0].names
    known = [name for candidate in guess.candidates or candidates for name in candidate.archs]
    why = "its layers fit several families" if guess.candidates else "it names no base model and its layers fit none"
    raise ValueError(f"{file}: the model family is not told: {why}; say it with --arch, one of {', '.join(known)}")


def format_summary(summary: Mapping[str, Any]) -> str:
    """The facts as text, the header's entries at the end."""
    ranks = [f"{rank} ({count} layers)" for rank, count in summary["ranks"].items()]
    told = f" ({summary['families_told']})"
    rows = {
        "file": f"{summary['file']} ({summary['bytes'] / 1e6:,.1f} MB)",
        "network": f"{summary['network']}: {summary['layers']} layers, {summary['tensors']} tensors",
        "rank": ", ".join(ranks) or "full",
        "alpha": ", ".join(f"{alpha:g}" for alpha in summary["alphas"])
        or "not in the file, which means: equal to rank",
        "dtype": ", ".join(f"{dtype} ({count} tensors)" for dtype, count in summary["dtypes"].items()),
        "base model": summary["base_model"] or "not in the file",
        "family": (", ".join(summary["families"]) or "unknown") + told,
        "key format": summary["key_format"],
    }
    lines = [f"{name:<11}{value}" for name, value in rows.items()]
    lines += ["blocks"]
    lines += [f"  {group}: {n['layers']} layers in {n['blocks']}" for group, n in summary["blocks"].items()]
    if summary["unknown_keys"]:
        lines.append(
            f"not of a network: {', '.join(summary['unknown_keys'][:5])} ({len(summary['unknown_keys'])} in all)"
        )
    lines += ["header" if summary["header"] else "header     none"]
    return "\n".join([*lines, *(_entry(key, value) for key, value in sorted(summary["header"].items()))])


def _entry(key: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, indent=2)
    return f"  {key}: " + text.replace("\n", "\n  ")
