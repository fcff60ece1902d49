"""The job kinds (`job:` in YAML) and which process types each has."""

from __future__ import annotations

from toolkit.registry import Registry

KINDS = {
    "extension": "run any process; what most configs say",
    "train": "train a model or a network",
    "generate": "make images with a model",
    "extract": "turn the difference of two models into a network",
    "caption": "write captions for the images of a folder",
    "mod": "change a file of weights",
    "merge": "merge networks and models into one file",
}
STANDARD = ("extension", "train")
"""Kinds that always have processes; the others depend on what is installed."""


def process_types(kind: str, registry: Registry) -> list[str]:
    """The process types of a job kind. Imports the config class of each; one that does not load is left out."""
    found = []
    for name in registry.entries("processes"):
        try:
            plugin = registry.load("processes", name)
        except ValueError:
            continue
        if kind in plugin.jobs:
            found.append(name)
    return found
