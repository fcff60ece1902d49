"""`aitk lora merge`, `resize`, `rescale`, `dtype` and `metadata`: each a process of job kind `merge` or `mod`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.cli.lora_inspect import ARCH_HELP
from toolkit.cli.one_process import run_process
from toolkit.cli.options import DryRun

Source = Annotated[str, typer.Argument(help="A .safetensors file.", show_default=False)]
Out = Annotated[str, typer.Option("--out", "-o", help="The file that is written.", show_default=False)]
Kind = Annotated[str | None, typer.Option("--dtype", help="fp16, bf16 or fp32; default: as in the file.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Device = Annotated[str, typer.Option(help="Where singular values are computed: auto, cpu, mps, cuda or cuda:N.")]
OPTIONS = {
    r"loras\.\d+\.path": "FILE",
    r"loras\.\d+\.part": "--part",
    "loras": "FILE",
    "base": "--into",
    "input_path": "FILE",
    "output_path": "--out",
    "save_dtype": "--dtype",
    "current_weight": "--by",
    "scale_target": "--target",
    "key_format": "--to",
    **{key: f"--{key}" for key in ("method", "rank", "energy", "arch", "device", "report", "strip", "remove", "set")},
}
"""Patterns of keys of the config -> the words of these commands."""
_WEIGHTED = re.compile(r"(?P<path>.+):(?P<weight>[+-]?(\d+\.?\d*|\.\d+))")


def merge(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE[:WEIGHT]...", help="LoRAs: a.safetensors:0.8 b.safetensors")
    ],
    out: Out,
    into: Annotated[
        str | None, typer.Option("--into", help="Merge into this model (folder, file, Hub name) and write a model.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="concat (exact), sum or svd; default: concat.")] = None,
    rank: Annotated[int | None, typer.Option(help="Cut to this rank: --method svd.")] = None,
    energy: Annotated[float | None, typer.Option(help="Share of the energy that a cut keeps, such as 0.98.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Key format; default: that of the first file.")] = None,
    arch: Annotated[str | None, typer.Option("--arch", help=ARCH_HELP)] = None,
    dtype: Kind = None,
    device: Device = "auto",
    part_only: Annotated[
        bool, typer.Option("--part-only", help="With --into: write the changed parts, not the whole model.")
    ] = False,
    part: Annotated[
        str | None, typer.Option("--part", help="With --into: the denoiser that they are for, if it has two.")
    ] = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Make one LoRA of several, or with --into a model of a base and LoRAs. Each file has a weight, 1 unless given.

    Exit codes: 0 done, 1 failed, 2 bad options.
    """
    keys: dict[str, Any] = {
        "loras": [weighted(file) for file in files],
        "output_path": out,
        "save_dtype": dtype,
        "arch": arch,
        "overwrite": force or None,
    }
    if into is not None:
        given = {"--method": method, "--rank": rank, "--energy": energy, "--to": to}
        if useless := [name for name, value in given.items() if value is not None]:
            raise typer.BadParameter(f"{', '.join(useless)} has no effect with --into")
        for lora in keys["loras"] if part is not None else []:
            lora["part"] = part
        keys |= {"type": "merge_lora_into_model", "base": into, "whole": False if part_only else None}
    else:
        if part_only or part is not None:
            raise typer.BadParameter(f"{'--part-only' if part_only else '--part'} has no effect without --into")
        cuts = rank is not None or energy is not None
        keys |= {"type": "merge_loras", "method": method or ("svd" if cuts else None), "rank": rank}
        keys |= {"energy": energy, "key_format": to, "device": device}
    run_process("merge", f"merge_{_stem(out)}", keys, dry_run, options=OPTIONS)


def resize(
    file: Source,
    out: Out,
    rank: Annotated[int | None, typer.Option(help="Rank of every layer at most.")] = None,
    energy: Annotated[
        float | None, typer.Option(help="Share of the energy (squared singular values) that each layer keeps: 0.98.")
    ] = None,
    report: Annotated[str | None, typer.Option(help="JSON file with rank and energy of every layer.")] = None,
    dtype: Kind = None,
    device: Device = "auto",
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Cut a LoRA to a lower rank, each layer to the nearest one, and say what is kept."""
    keys = {"type": "resize_lora", "input_path": file, "output_path": out, "rank": rank, "energy": energy}
    keys |= {"report": report, "save_dtype": dtype, "device": device, "overwrite": force or None}
    run_process("mod", f"resize_{_stem(out)}", keys, dry_run, options=OPTIONS)


def rescale(
    file: Source,
    out: Out,
    by: Annotated[float, typer.Option("--by", help="By which its strength is multiplied.", show_default=False)],
    target: Annotated[str, typer.Option("--target", help="up_down, or alpha.")] = "up_down",
    dtype: Annotated[str, typer.Option("--dtype", help="fp16, bf16 or fp32.")] = "fp16",
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Change the strength of a LoRA: with --by 0.5 it does with weight 1 what it did with 0.5."""
    keys = {"type": "rescale_lora", "input_path": file, "output_path": out, "current_weight": by, "target_weight": 1.0}
    keys |= {"scale_target": target, "save_dtype": dtype, "overwrite": force or None}
    run_process("mod", f"rescale_{_stem(out)}", keys, dry_run, options=OPTIONS)


def dtype(
    file: Annotated[str, typer.Argument(help="A .safetensors file, or a model folder.", show_default=False)],
    to: Annotated[str, typer.Argument(help="fp16, bf16 or fp32.", show_default=False)],
    out: Out,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Write the numbers of a LoRA, a checkpoint or a model folder in another type."""
    keys = {"type": "change_dtype", "input_path": file, "output_path": out, "save_dtype": to}
    run_process("mod", f"dtype_{_stem(out)}", keys | {"overwrite": force or None}, dry_run, options=OPTIONS)


def metadata(
    file: Source,
    out: Out,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Add or replace an entry; may be repeated.")
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", help="Remove an entry; 'ss_*' is all that begin so; may be repeated."),
    ] = None,
    strip: Annotated[bool, typer.Option("--strip", help="Remove all entries.")] = False,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Change the header of a file, and write its hashes anew; `aitk lora inspect` shows it."""
    if wrong := [change for change in changes or [] if "=" not in change]:
        raise typer.BadParameter(f"--set {wrong[0]}: write KEY=VALUE")
    entries = dict(change.split("=", 1) for change in changes or [])
    keys: dict[str, Any] = {"type": "edit_metadata", "input_path": file, "output_path": out, "strip": strip or None}
    keys |= {"remove": remove or None, "set": entries or None, "overwrite": force or None}
    run_process("mod", f"metadata_{_stem(out)}", keys, dry_run, options=OPTIONS)


def weighted(text: str) -> dict[str, Any]:
    """`FILE:WEIGHT` as the keys of a config; a file of that very name comes first."""
    match = _WEIGHTED.fullmatch(text)
    if match is None or Path(text).expanduser().exists():
        return {"path": text}
    return {"path": match["path"], "weight": float(match["weight"])}


def _stem(out: str) -> str:
    return Path(out).expanduser().absolute().stem
