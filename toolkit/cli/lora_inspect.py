"""`aitk lora inspect`, `convert` and `verify`: looking into a LoRA file, and its names for another program."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.cli.options import AsJson
from toolkit.config.key_names import FORMATS
from toolkit.networks.keys.family import find_names, list_candidates
from toolkit.networks.keys.summary import summarize

WRONG, FAILED = 1, 2
ARCH_HELP = "Model family, if the file does not tell; `aitk ls archs` lists them."
SHOWN = 20
"""Problems of a file that are printed; the rest is counted."""


def inspect(
    file: Annotated[Path, typer.Argument(help="A .safetensors file.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show the network, rank, alpha, base model, family, key format and header of a file. Reads no weights."""
    try:
        summary = summarize(file, list_candidates())
    except (OSError, ValueError) as error:
        fail(error)
    print(json.dumps(summary, indent=2) if as_json else format_summary(summary))
    if not summary["layers"]:
        fail(ValueError(f"{file}: no layer of a network is in it; is it a whole model?"))


def convert(
    file: Annotated[Path, typer.Argument(help="A .safetensors file.", show_default=False)],
    to: Annotated[str, typer.Option("--to", help=f"Key format: {', '.join(FORMATS)}.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The new file, or its folder; default: NAME_FORMAT.safetensors beside it."),
    ] = None,
    arch: Annotated[str | None, typer.Option("--arch", help=ARCH_HELP)] = None,
    part: Annotated[str | None, typer.Option("--part", help="The expert, of a file of two: transformer_2.")] = None,
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
        names = find_names(file, arch, "--arch")
        from toolkit.networks.keys.convert import convert_file

        done = convert_file(file, target, names, to, part)
    except (OSError, ValueError) as error:
        fail(error)
    if done.kept:
        print(f"note: {len(done.kept)} keys have no other names and are kept, e.g. {done.kept[0]}", file=sys.stderr)
    print(f"wrote {target}: {done.layers} layers")


def verify(
    files: Annotated[list[Path], typer.Argument(help=".safetensors files.", show_default=False)],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Also whether it fits a model: a folder, a file, a Hub name.")
    ] = None,
    part: Annotated[
        str | None, typer.Option("--part", help="The denoiser that it is for, where the model has two: transformer_2.")
    ] = None,
    arch: Annotated[str | None, typer.Option("--arch", help=ARCH_HELP)] = None,
    as_json: AsJson = False,
) -> None:
    """Read whole files: NaN, tensors that do not pair up, zero layers, alphas, hashes, and whether they fit a model.

    Exit codes: 0 all is well, 1 something is wrong, 2 bad options.
    """
    if missing := [str(file) for file in files if not file.is_file()]:
        fail(ValueError(f"there is no file {', '.join(missing)}"))
    from toolkit.weights.base import open_base
    from toolkit.weights.verify import compare, examine

    try:
        base = open_base(model) if model is not None else None
    except (OSError, ValueError) as error:
        fail(ValueError(f"--model: {error}"))
    results = []
    for file in files:
        found = examine(file)
        if found.layers:
            try:
                names = find_names(file, arch, "--arch", model)
                found.problems += compare(file, base, names, part) if base is not None else []
            except (OSError, ValueError) as error:
                (found.notes if base is None else found.problems).append(str(error))
        results.append({"file": str(file), "layers": found.layers, "tensors": found.tensors,
                        "problems": found.problems, "notes": found.notes})  # fmt: skip
    print(json.dumps(results, indent=2) if as_json else "\n".join(map(format_findings, results)))
    raise typer.Exit(WRONG if any(result["problems"] for result in results) else 0)


def fail(error: Exception) -> Any:
    """Print the error and end with the exit code of a user's mistake."""
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    print(text, file=sys.stderr)
    raise typer.Exit(FAILED) from None


def format_findings(result: Mapping[str, Any]) -> str:
    """What was found in one file as text."""
    problems, notes = result["problems"], result["notes"]
    count = f"{len(problems)} problem{'s' * (len(problems) != 1)}" if problems else "all is well"
    lines = [f"{result['file']}: {count} ({result['layers']} layers, {result['tensors']} tensors)"]
    for title, texts in (("wrong", problems), ("note", notes)):
        lines += [f"  {title}: {text}" for text in texts[:SHOWN]]
        lines += [f"  {title}: and {len(texts) - SHOWN} more (--json shows all)"] if len(texts) > SHOWN else []
    return "\n".join(lines)


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
