"""The models that ship with aitk: `builtin:NAME` in a config, the folder NAME of `toolkit/assets`."""

from __future__ import annotations

from pathlib import Path

from toolkit.registry import ROOT

EMBEDDED = "builtin:"
ASSETS = ROOT / "toolkit" / "assets"


def embedded_folder(name: str) -> Path | None:
    """Where `builtin:NAME` is, or would be; None for the name of another model."""
    return ASSETS / name.removeprefix(EMBEDDED) if name.startswith(EMBEDDED) else None


def misnamed(name: str) -> str:
    """What is wrong with a `builtin:NAME`; empty if nothing is."""
    known = sorted(f"{EMBEDDED}{file.parent.name}" for file in ASSETS.glob("*/model_index.json"))
    return "" if name in known else f"there is no embedded model '{name}' (known: {', '.join(known) or 'none'})"
