"""`aitk lora`: the group of commands that look into LoRA files and make others of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from toolkit.cli import lora_edit, lora_extract, lora_inspect

# command -> its line in the list of the group
COMMANDS: dict[Callable[..., Any], str] = {
    lora_inspect.inspect: "Show what a file is: network, rank, family, header.",
    lora_inspect.verify: "Read whole files and say what is wrong with them.",
    lora_inspect.convert: "Write the same weights for another program.",
    lora_edit.merge: "Make one LoRA of several, or a model of a base and LoRAs.",
    lora_edit.resize: "Cut a LoRA to a lower rank.",
    lora_extract.extract: "Write the difference of two checkpoints as a LoRA.",
    lora_edit.rescale: "Change the strength of a LoRA.",
    lora_edit.dtype: "Write fp16, bf16 or fp32 numbers.",
    lora_edit.metadata: "Change the header of a file.",
}

lora = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Look into LoRA files, and make others of them.",
)
for command, line in COMMANDS.items():
    lora.command(no_args_is_help=True, short_help=line)(command)
