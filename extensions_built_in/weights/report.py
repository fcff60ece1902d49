"""What the processes of this folder say and check at their start and at their end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.atomic import remove_leftovers

if TYPE_CHECKING:
    from extensions_built_in.weights.output import WritesWeights


def begin(config: WritesWeights) -> None:
    """Refuse to replace what is there, and clear away what a killed run of the same output left."""
    if config.target.exists() and not config.may_replace():
        raise ValueError(f"output_path: {config.target} exists and is not replaced; set `overwrite: true`")
    remove_leftovers(config.target.absolute().parent, config.target.name)


def finish(target: Path, what: str) -> None:
    """Say what was written."""
    files = [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
    print(f"wrote {target}: {what}, {sum(path.stat().st_size for path in files) / 1e6:,.1f} MB", flush=True)


def show_energy(kept: Mapping[str, float], count: int = 5) -> None:
    """Print the mean share of energy that layers kept, and the layers with the least of it."""
    worst = sorted(kept, key=lambda name: kept[name])[:count]
    print(f"energy kept: {sum(kept.values()) / len(kept):.2%} on average; least:")
    print(*(f"  {kept[name]:.2%} {name}" for name in worst), sep="\n", flush=True)
