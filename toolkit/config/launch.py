"""`config.launch` of a document -> the launcher's plugin, typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from toolkit.config.choice import Choice
from toolkit.config.document import Document
from toolkit.config.errors import ConfigError, KeyPath
from toolkit.config.plugins import LauncherPlugin
from toolkit.config.unknown import explain_unknown
from toolkit.config.wording import find, shorten
from toolkit.registry import get_registry

LAUNCH: KeyPath = ("config", "launch")


def read_launcher(document: Document, with_site: bool = True) -> LauncherPlugin | None:
    """The launcher that a config asks for; None if it asks for none, or for one that cannot be made.

    `with_site`: what holds at this site is filled in below its keys.
    """
    data = document.get(LAUNCH)
    if data is None:
        return None
    if not isinstance(data, dict):
        document.complain(LAUNCH, f"must be a group of keys, not {shorten(data)}")
        return None
    try:
        plugin: type[LauncherPlugin] = Choice("launchers", "type").section(LauncherPlugin, data)
        _drop_of_others(document, plugin)
        if with_site:
            _fill_in(document, plugin)
        launcher = plugin.model_validate(data)
    except ValidationError as error:
        for finding in find(error, data):
            text = explain_unknown(plugin, data, finding.path) if finding.is_unknown else finding.message
            document.complain((*LAUNCH, *finding.path), text)
        return None
    for path, text in launcher.contradictions():
        document.complain((*LAUNCH, *path), text)
    return launcher


def _drop_of_others(document: Document, plugin: type[LauncherPlugin]) -> None:
    """Leave out the keys of another launcher, where the command line has chosen this one."""
    if (*LAUNCH, "type") not in document.origins:
        return
    registry = get_registry()
    others = {key for name in registry.entries("launchers") for key in registry.load("launchers", name).model_fields}
    for key in [key for key in document.get(LAUNCH) if key in others and key not in plugin.model_fields]:
        document.remove((*LAUNCH, key))


def _fill_in(document: Document, plugin: type[LauncherPlugin]) -> None:
    """Put what holds at this site below the keys of the config; what is wrong with it is said with its own place."""
    try:
        site = plugin.site_defaults(document.get(LAUNCH))
    except ConfigError as error:
        document.problems += error.problems
        return
    except ValueError as error:
        document.complain((*LAUNCH, "profile"), str(error))
        return
    if site is not None:
        document.problems += site.problems
        document.environment |= site.environment
        _merge(document, LAUNCH, site, ())


def _merge(document: Document, into: KeyPath, site: Document, path: KeyPath) -> None:
    """Copy the values at `path` of `site` that the group at `into` has not; groups are merged key by key."""
    values: Mapping[str, Any] = site.get(path) if path else site.data
    for key, value in values.items():
        own, place, source = document.get((*into, key)), (*into, key), (*path, key)
        if isinstance(own, dict) and isinstance(value, dict):
            _merge(document, place, site, source)
        elif own is None:
            document.set(place, value)
            inside = {old: (*place, *old[len(source) :]) for old in site.lines if old[: len(source)] == source}
            document.origins |= {new: site.where(old) for old, new in inside.items()}
            document.secrets |= {new: site.secrets[old] for old, new in inside.items() if old in site.secrets}
