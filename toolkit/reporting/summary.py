"""The last lines of a training run: where the files are, and how to use them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.reporting.usage import Usage, comfyui_text, python_lines


def summary(
    weights: Sequence[Path],
    *,
    step: int,
    seconds: float,
    usage: Usage | None = None,
    samples_dir: Path | None = None,
    contact_sheet: Path | None = None,
) -> list[str]:
    """Return the lines; `usage` is None where no pipeline of diffusers takes the weights as they are."""
    lines = [f"Done: {step} steps in {format_duration(seconds)}.", *(f"Weights: {path}" for path in weights)]
    if contact_sheet is not None:
        lines.append(f"Contact sheet: {contact_sheet}")
    if samples_dir is not None:
        lines.append(f"Pictures: {samples_dir}")
    if usage is None:
        return lines
    code = python_lines(usage, weights[0].parent.as_posix())
    lines += ["", "Use it in Python:", *(f"    {line}".rstrip() for line in code)]
    if text := comfyui_text(usage.saved):
        lines += ["", f"Use it in ComfyUI: {text}"]
    return lines


def format_duration(seconds: float) -> str:
    """Write a duration for people: 48 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole // 60 % 60:02d} min"
