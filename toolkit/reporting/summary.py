"""The last lines of a training run: where the files are, and how to use them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def summary(
    weights: Sequence[Path],
    *,
    step: int,
    seconds: float,
    base_model: str,
    pipeline: str | None = None,
    dtype: str = "bfloat16",
    trigger: str | None = None,
    samples_dir: Path | None = None,
    contact_sheet: Path | None = None,
    is_adapter: bool = True,
    is_video: bool = False,
    takes_picture: bool = False,
    for_second: Sequence[Path] = (),
) -> list[str]:
    """Return the lines; how to use the files is said of a LoRA that `pipeline`, a class of diffusers, loads.

    `dtype` is the precision to load the base model in, as torch calls it. `for_second` are those of the weights that
    belong to the second transformer of a model with two.
    """
    lines = [f"Done: {step} steps in {format_duration(seconds)}.", *(f"Weights: {path}" for path in weights)]
    if contact_sheet is not None:
        lines.append(f"Contact sheet: {contact_sheet}")
    if samples_dir is not None:
        lines.append(f"Pictures: {samples_dir}")
    if not is_adapter or not pipeline:
        return lines
    return [
        *lines,
        "",
        "Use it in Python:",
        *_python(weights, base_model, pipeline, dtype, trigger, is_video, takes_picture, for_second),
        "",
        f"Use it in ComfyUI: copy {' and '.join(path.name for path in weights)} to ComfyUI/models/loras/ "
        "and choose it in a LoRA loader.",
    ]


def format_duration(seconds: float) -> str:
    """Write a duration for people: 48 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole // 60 % 60:02d} min"


def _python(
    weights: Sequence[Path],
    base_model: str,
    pipeline: str,
    dtype: str,
    trigger: str | None,
    is_video: bool,
    takes_picture: bool,
    for_second: Sequence[Path],
) -> list[str]:
    """Return the snippet that makes one picture or video with the weights."""
    prompt = f"a picture of {trigger}" if trigger else "your prompt"
    asked = f'prompt="{prompt}"' + (', image=load_image("input.png")' if takes_picture else "")
    made = f'export_to_video(pipe({asked}).frames[0], "video.mp4", fps=16)'
    functions = [*(["export_to_video"] if is_video else []), *(["load_image"] if takes_picture else [])]
    lines = [
        "import torch",
        f"from diffusers import {pipeline}",
        *([f"from diffusers.utils import {', '.join(functions)}"] if functions else []),
        f'pipe = {pipeline}.from_pretrained("{base_model}", dtype=torch.{dtype})',
        *(_load(path, path in for_second) for path in weights),
        made if is_video else f'pipe({asked}).images[0].save("picture.png")',
    ]
    return [f"    {line}" for line in lines]


def _load(path: Path, is_second: bool) -> str:
    more = ", load_into_transformer_2=True" if is_second else ""
    return f'pipe.load_lora_weights("{path.parent.as_posix()}", weight_name="{path.name}"{more})'
