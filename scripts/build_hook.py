"""Adds the two files of the top level to a wheel; `sources` in pyproject.toml can only move folders."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class TopLevelFiles(BuildHookInterface):
    """Part of the build of a wheel, not of an editable install, which reads the clone itself."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put run.py and pyproject.toml beside the packages of the app image."""
        if version == "standard":
            build_data["force_include"] |= {name: f"aitk_app/{name}" for name in ("run.py", "pyproject.toml")}
