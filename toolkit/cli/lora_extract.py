"""`aitk lora extract`: a job of kind `extract` from the command line; the same as a config file with these values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.cli.one_process import run_process
from toolkit.cli.options import DryRun
from toolkit.cli.run import BAD_CONFIG

DEFAULT_RANK = 16
OPTIONS = {
    "base_model": "BASE",
    "extract_model": "TUNED",
    "extras_name_or_path": "--extras",
    "max_rank": "--max-rank",
    "key_format": "--key-format",
    "output_path": "--out",
    **{key: f"--{key}" for key in ("conv", "arch", "device", "dtype")},
}
"""Patterns of keys of the config -> the words of this command; `linear` is the option of the mode."""


def extract(
    base: Annotated[
        str, typer.Argument(help="The checkpoint that was fine-tuned: a folder, file or Hub name.", show_default=False)
    ],
    tuned: Annotated[str, typer.Argument(help="The fine-tuned checkpoint.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The new file; default: NAME_lora.safetensors, NAME of TUNED.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help=f"The rank of every layer; default: {DEFAULT_RANK}.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Keep singular values above this number.")] = None,
    ratio: Annotated[float | None, typer.Option(help="Keep those above this share of the layer's largest.")] = None,
    quantile: Annotated[float | None, typer.Option(help="Keep the fewest with this share of their sum.")] = None,
    conv: Annotated[
        float | None, typer.Option(help="The same number for 3x3 convolutions; without it they are left out.")
    ] = None,
    max_rank: Annotated[int | None, typer.Option(help="No layer gets a larger rank.")] = None,
    arch: Annotated[str | None, typer.Option(help="Model family, if the files do not tell.")] = None,
    extras: Annotated[str | None, typer.Option(help="Where the configuration of single files comes from.")] = None,
    denoiser: Annotated[bool, typer.Option("--denoiser/--no-denoiser", help="The U-Net or transformer.")] = True,
    text_encoders: Annotated[bool, typer.Option("--text-encoders/--no-text-encoders", help="If they differ.")] = True,
    all_layers: Annotated[bool, typer.Option("--all-layers", help="Layers outside of the blocks too.")] = False,
    diffs: Annotated[bool, typer.Option("--diffs", help="Biases, norms and embeddings too, for ComfyUI.")] = False,
    key_format: Annotated[str, typer.Option(help="auto, diffusers, kohya, comfyui or original.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Precision of the file: fp16, bf16 or fp32.")] = "fp16",
    as_json: Annotated[bool, typer.Option("--json", help="Write what was kept of each layer to FILE.json.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Write the difference of two checkpoints as a LoRA.

    Exit codes: 0 done, 1 failed, 2 bad options, 130 stopped by the user.
    """
    modes = {"fixed": rank, "threshold": threshold, "ratio": ratio, "quantile": quantile}
    chosen = {mode: number for mode, number in modes.items() if number is not None} or {"fixed": DEFAULT_RANK}
    if len(chosen) > 1:
        _refuse("--rank, --threshold, --ratio and --quantile: give one of them")
    name = f"{Path(tuned).expanduser().absolute().stem if Path(tuned).exists() else Path(tuned).name}_lora"
    target = out or Path(f"{name}.safetensors")
    if target.is_dir():
        target = target / f"{name}.safetensors"
    if target.exists() and not force and not dry_run:
        _refuse(f"{target} exists and was not changed; name another file with -o, or add --force")
    keys: dict[str, Any] = {
        "type": "lora",
        "base_model": base,
        "extract_model": tuned,
        "arch": arch,
        "extras_name_or_path": extras,
        "mode": next(iter(chosen)),
        "linear": next(iter(chosen.values())),
        "conv": conv,
        "max_rank": max_rank,
        "transformer_only": not all_layers,
        "diffs": diffs,
        "extract_unet": denoiser,
        "extract_text_encoder": text_encoders,
        "key_format": key_format,
        "device": device,
        "dtype": dtype,
        "output_path": str(target),
        "json_report": as_json,
    }
    options = OPTIONS | {"linear": f"--{keys['mode']}".replace("--fixed", "--rank")}
    run_process("extract", target.stem, keys, dry_run, options=options)


def _refuse(text: str) -> None:
    print(text, file=sys.stderr)
    raise typer.Exit(BAD_CONFIG)
