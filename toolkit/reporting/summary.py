"""The last lines of a training run: where the files are, and how to use them."""

from __future__ import annotations

from pathlib import Path


def summary(
    weights: Path,
    *,
    step: int,
    seconds: float,
    base_model: str,
    pipeline: str | None = None,
    trigger: str | None = None,
    samples_dir: Path | None = None,
    contact_sheet: Path | None = None,
    is_adapter: bool = True,
) -> list[str]:
    """Return the lines; how to use the file is said of a LoRA that `pipeline`, a class of diffusers, loads."""
    lines = [f"Done: {step} steps in {format_duration(seconds)}.", f"Weights: {weights}"]
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
        *_python(weights, base_model, pipeline, trigger),
        "",
        f"Use it in ComfyUI: copy {weights.name} to ComfyUI/models/loras/ and choose it in a LoRA loader.",
    ]


def format_duration(seconds: float) -> str:
    """Write a duration for people: 48 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole // 60 % 60:02d} min"


def _python(weights: Path, base_model: str, pipeline: str, trigger: str | None) -> list[str]:
    """Return the snippet that makes one picture with the weights."""
    prompt = f"a picture of {trigger}" if trigger else "your prompt"
    lines = [
        f"from diffusers import {pipeline}",
        f'pipe = {pipeline}.from_pretrained("{base_model}")',
        f'pipe.load_lora_weights("{weights.parent.as_posix()}", weight_name="{weights.name}")',
        f'pipe("{prompt}").images[0].save("picture.png")',
    ]
    return [f"    {line}" for line in lines]
