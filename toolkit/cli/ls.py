"""`aitk ls`: what a config can name, and which extension brings it. Imports none of them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from jobs.kinds import KINDS as JOB_KINDS
from toolkit.cli.options import AsJson
from toolkit.registry import KINDS, Registry, get_registry, nearest_names

TITLES = {
    "jobs": "job kinds (job:)",
    "processes": "process types (type:)",
    "models": "archs (model.arch:)",
    "networks": "networks (network.type:)",
    "optimizers": "optimizers (train.optimizer:)",
    "captioners": "captioners (caption.type:)",
    "launchers": "launchers (launch.type:)",
}


def ls(
    kind: Annotated[str | None, typer.Argument(help="One of: " + ", ".join(TITLES), show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Nothing is imported; `aitk doctor` tries whether the extensions load."""
    kind = "models" if kind == "archs" else kind
    if kind is not None and kind not in TITLES:
        near = nearest_names(kind, TITLES, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(TITLES)}"
        raise typer.BadParameter(f"no kind is named '{kind}'; {hint}")
    listing = make_listing(get_registry())
    if kind is not None:
        listing = {key: value for key, value in listing.items() if key in {kind, "broken"}}
    print(json.dumps(listing, indent=2) if as_json else format_listing(listing))


def make_listing(registry: Registry) -> dict[str, Any]:
    """Kind -> rows, as plain data."""
    rows: dict[str, Any] = {"jobs": [{"name": name, "description": text} for name, text in JOB_KINDS.items()]}
    for kind in KINDS:
        duplicates = registry.duplicates(kind)
        entries = [*registry.entries(kind).values(), *(entry for entry in registry.unread if entry.kind == kind)]
        rows[kind] = [
            {
                "name": entry.name,
                "extension": entry.extension,
                "target": entry.target,
                "declared_by": [found.origin for found in duplicates.get(entry.name, [entry])],
            }
            for entry in entries
        ]
    rows["broken"] = [{"declared_by": item.origin, "reason": item.reason} for item in registry.broken]
    return rows


def format_listing(listing: dict[str, Any]) -> str:
    """The listing as text: per kind one line per name."""
    blocks = []
    for kind, title in TITLES.items():
        lines = [_format_row(row) for row in listing.get(kind, [])]
        if kind in listing:
            blocks.append("\n".join([title, *(lines or ["  (none installed)"])]))
    if listing["broken"]:
        lines = [f"  {item['declared_by']}: {item['reason']}" for item in listing["broken"]]
        blocks.append("\n".join(["not usable", *lines]))
    return "\n\n".join(blocks)


def _format_row(row: dict[str, Any]) -> str:
    if "description" in row:
        return f"  {row['name']:<31}{row['description']}"
    name = row["name"] or f"({row['target']}: named when imported)"
    origins = row["declared_by"]
    if len(origins) > 1:
        return f"  {name:<31}declared twice, not usable: by {' and by '.join(origins)}"
    return f"  {name:<31}{row['extension']:<38} {origins[0]}"
