"""`aitk generate`: a job `generate` from the command line; the same as a config file with these values."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.cli.one_process import run_process
from toolkit.cli.options import DryRun
from toolkit.cli.run import BAD_CONFIG

OPTIONS = {
    "model.arch": "--arch",
    "model.name_or_path": "MODEL",
    "model.qtype": "--quantize",
    r"loras\.\d+\.\w+": "--lora",
    "output_folder": "--out",
    "generate.prompts": "PROMPT",
    "generate.seed": "--seed",
    "generate.guidance_scale": "--guidance",
    "generate.sample_steps": "--steps",
    "generate.width": "--size",
    "generate.height": "--size",
    "generate.compare": "--compare",
    "generate.num_repeats": "--num",
    "generate.sampler": "--sampler",
    "generate.num_frames": "--frames",
    "generate.batch_size": "--batch-size",
    "generate.ext": "--ext",
    "device": "--device",
    "dtype": "--dtype",
}
"""Patterns of keys of the config -> the words of this command."""


def generate(
    model: Annotated[
        str,
        typer.Argument(help="builtin:tiny-flux, a folder, or a name on the Hub.", metavar="MODEL", show_default=False),
    ],
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            help="One or more; flags inside such as '--w 512 --d 42' are read.", metavar="PROMPT", show_default=False
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[:WEIGHT]", help="A LoRA that acts, here or on the Hub: my.safetensors:0.8. Repeatable."
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="W,W,...", help="A grid of the prompts with the LoRAs at so many times their weights: 0,0.5,1."
        ),
    ] = None,
    prompts_file: Annotated[Path | None, typer.Option(help="A text file with one prompt per line.")] = None,
    neg: Annotated[str, typer.Option(help="Negative prompt.")] = "",
    seed: Annotated[int, typer.Option(help="Seed; -1 draws one for every picture.")] = 42,
    num: Annotated[int, typer.Option(help="Pictures per prompt; number n uses the seed plus n.")] = 1,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WxH",
            help="Size in pixels; of several, each picture gets one by chance. Default: what the model was made for.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps; default: what the model's pipeline takes.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale; default: what the model's pipeline takes.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="Sampler; default: the checkpoint's.")] = None,
    frames: Annotated[int | None, typer.Option(help="Video: number of frames.")] = None,
    arch: Annotated[
        str | None,
        typer.Option(help="The model family; default: what the checkpoint says. `aitk ls archs` lists them."),
    ] = None,
    quantize: Annotated[str | None, typer.Option(help="Store the model in few bits: qfloat8, qint8, qint4.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="bf16, fp16 or fp32; default: fp32 on the CPU, else bf16.")] = None,
    ext: Annotated[str, typer.Option(help="png, jpg or webp.")] = "png",
    batch_size: Annotated[int | None, typer.Option(help="Pictures that are made at once.")] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the pictures.")] = "output/generated",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other key: generate.prompt_file=true.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Pictures that are there stay. ctrl+c finishes the batch; the same command makes the rest.

    Exit codes: 0 done, 1 failed, 2 bad options, 130 stopped by the user.
    """
    try:
        making: dict[str, Any] = {
            "prompts": _prompts(prompts, prompts_file),
            "neg": neg,
            "seed": seed,
            "num_repeats": num,
            "sample_steps": "auto" if steps is None else steps,
            "guidance_scale": "auto" if guidance is None else guidance,
            "sampler": sampler,
            "num_frames": frames,
            "ext": ext,
            "batch_size": batch_size,
            "compare": _numbers(compare) if compare else None,
            **_sizes(size or []),
        }
        process = {
            "type": "to_folder",
            "output_folder": out,
            "device": device,
            "dtype": dtype,
            "model": {
                "arch": _checked(arch, model) if arch else _recognized(model),
                "name_or_path": model,
                **_quantized(quantize),
            },
            "loras": [read_lora(text) for text in lora or []],
            "generate": {key: value for key, value in making.items() if value is not None},
        }
    except ValueError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD_CONFIG) from None
    run_process("generate", Path(out).name or "generated", process, dry_run, overrides or [], OPTIONS)


def read_lora(text: str) -> dict[str, Any]:
    """`FILE:0.8` as an entry of `loras`; a colon without a number behind it belongs to the name."""
    path, _, weight = text.rpartition(":")
    try:
        return {"path": path, "weight": float(weight)} if path else {"path": text}
    except ValueError:
        return {"path": text}


def _prompts(given: list[str] | None, file: Path | None) -> list[str] | str:
    if given and file:
        raise ValueError("PROMPT and --prompts-file do not go together")
    if not given and not file:
        raise ValueError("PROMPT: missing: what is to be made; or name a --prompts-file")
    if file and not file.expanduser().is_file():
        raise ValueError(f"--prompts-file: there is no file {file}")
    return given or str(file)


def _sizes(texts: list[str]) -> dict[str, Any]:
    sizes = []
    for text in texts:
        match = re.fullmatch(r"(\d+)(?:[xX*,](\d+))?", text.strip())
        if match is None:
            raise ValueError(f"--size: must be WIDTHxHEIGHT such as 512x768, not '{text}'")
        sizes.append([int(match[1]), int(match[2] or match[1])])
    if len(sizes) > 1:
        return {"size_list": sizes}
    width, height = sizes[0] if sizes else ("auto", "auto")
    return {"width": width, "height": height}


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--compare: must be numbers with commas between them such as 0,0.5,1, not '{text}'") from None


def _quantized(qtype: str | None) -> dict[str, Any]:
    return {"quantize": True, "qtype": qtype} if qtype else {}


def _recognized(model: str) -> str:
    """The family that a checkpoint says it is of."""
    from toolkit.models.recognize import Unrecognized, recognize
    from toolkit.networks.keys.family import load_families

    try:
        # a family that does not load is named by `aitk ls`
        return recognize(model, load_families()[0])
    except Unrecognized as error:
        raise ValueError(f"MODEL: {error}; name its family with --arch (`aitk ls archs` lists them)") from error
    except ValueError as error:
        raise ValueError(f"MODEL: {str(error).removeprefix('model.name_or_path: ')}") from error


def _checked(arch: str, model: str) -> str:
    """`arch`. ValueError if the model is a folder here that says it is of another family."""
    from toolkit.models.hub import Root
    from toolkit.models.recognize import recognize
    from toolkit.networks.keys.family import load_families

    families = load_families()[0]
    named = families.get(arch)
    try:
        found = recognize(model, families) if named and named.recognized_by and Root(model).folder else arch
    except ValueError:
        return arch  # it does not say, or what is wrong with it is found by the checks of all configs
    # families of one module have a network in common; one that inherits reads what its parent does
    if named and named.__module__ != families[found].__module__ and not issubclass(named, families[found]):
        raise ValueError(f"--arch: {model} is of the family {found}, not {arch}")
    return arch
