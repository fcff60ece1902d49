"""Our own pyproject.toml, which lies beside the packages in a clone and in a wheel alike."""

from __future__ import annotations

from typing import Any

from toolkit.plugin_sources import tomllib
from toolkit.registry import ROOT


def read_project() -> dict[str, Any]:
    """The table [project]: name, version, dependencies, ..."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        return dict(tomllib.load(stream)["project"])
