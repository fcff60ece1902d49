"""`aitk caption`: a job of kind `caption` from the command line; the same as a config file with these values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.cli.one_process import run_process
from toolkit.cli.options import DryRun


def caption(
    path: Annotated[str, typer.Argument(help="Folder with pictures, or one picture.", show_default=False)],
    captioner: Annotated[str, typer.Option(help="Which captioner; `aitk ls captioners` lists them.")] = "blip",
    model: Annotated[
        str | None, typer.Option(help="Folder or Hub name of the model; default: the captioner's.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What the model is asked.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Put before each caption as it is: 'a photo of m1k4, '.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Put after each caption as it is.")] = None,
    trigger: Annotated[str | None, typer.Option(help="What {trigger} stands for in these three.")] = None,
    min_length: Annotated[int | None, typer.Option(help="The shortest caption, in tokens.")] = None,
    max_length: Annotated[int | None, typer.Option(help="The longest caption, in tokens.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per call of the model.")] = None,
    quantize: Annotated[str | None, typer.Option(help="Store the model in few bits: qint8, qint4, qfloat8.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    recaption: Annotated[bool, typer.Option("--recaption", help="Replace captions that are there.")] = False,
    jsonl: Annotated[str | None, typer.Option(help="Write all captions into this file of JSON lines.")] = None,
    ext: Annotated[str | None, typer.Option(help="Ending of the caption files beside the pictures: txt.")] = None,
    output: Annotated[str, typer.Option(help="Folder of the log.")] = "output",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other key: caption.general_threshold=0.5."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Captions that are there stay, unless --recaption is given. ctrl+c finishes the batch; the same command goes on.

    Exit codes: 0 done, 1 failed, 2 bad options, 130 stopped by the user.
    """
    keys: dict[str, Any] = {
        "type": captioner,
        "path_to_caption": path,
        "model_name_or_path": model,
        "caption_prompt": prompt,
        "prefix": prefix,
        "suffix": suffix,
        "trigger_word": trigger,
        "min_new_tokens": min_length,
        "max_new_tokens": max_length,
        "batch_size": batch_size,
        "quantize": quantize is not None or None,
        "qtype": quantize,
        "recaption": recaption or None,
        "jsonl": jsonl,
        "caption_extension": ext,
    }
    section = {key: value for key, value in keys.items() if value is not None}
    process = {"type": "captioner", "training_folder": output, "device": device, "caption": section}
    name = f"caption_{Path(path).expanduser().absolute().name or 'all'}"
    run_process("caption", name, process, dry_run, overrides or [])
