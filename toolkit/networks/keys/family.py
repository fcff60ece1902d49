"""The names of the family that a file belongs to, looked up among those that are installed. No torch."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin
from toolkit.models.recognize import Unrecognized, recognize
from toolkit.networks.keys.guess import Candidate, guess_family
from toolkit.networks.keys.summary import read_file_header
from toolkit.registry import PluginError, get_registry, nearest_names


def load_families() -> tuple[dict[str, type[ModelPlugin]], dict[str, Exception]]:
    """(arch -> its plugin, arch -> why it does not load)."""
    registry = get_registry()
    loaded: dict[str, type[ModelPlugin]] = {}
    broken: dict[str, Exception] = {}
    for arch in registry.entries("models"):
        try:
            loaded[arch] = registry.load("models", arch)
        except (PluginError, ValueError) as error:
            broken[arch] = error
    return loaded, broken


def list_candidates() -> list[Candidate]:
    """The names of every family that loads, families with the same names together."""
    loaded, broken = load_families()
    for arch, error in broken.items():
        print(f"note: arch '{arch}' is left out: {error}", file=sys.stderr)
    families: dict[KeyNames, list[tuple[str, str]]] = {}
    for arch, plugin in loaded.items():
        names = getattr(plugin, "key_names", KeyNames())
        if names.layers:
            families.setdefault(names, []).append((arch, getattr(plugin, "example", "")))
    return [
        Candidate(names, tuple(arch for arch, _ in found), tuple(example for _, example in found))
        for names, found in families.items()
    ]


def names_of(arch: str, key: str = "arch") -> KeyNames:
    """The names of an arch. Raises ValueError, which names `key`, if there is none."""
    registry = get_registry()
    known = registry.entries("models")
    if arch not in known:
        near = nearest_names(arch, known)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"{key}: there is no arch '{arch}'; {hint}")
    return getattr(registry.load("models", arch), "key_names", KeyNames())


def find_names(
    file: Path, arch: str | None, key: str = "arch", model: str | None = None, revision: str | None = None
) -> KeyNames:
    """The names of the family that `arch` names, or the file tells, or the `model` that it is for.

    `key` is where the user says it.
    """
    if arch is not None:
        return names_of(arch, key)
    tensors, header = read_file_header(file)
    candidates = list_candidates()
    guess = guess_family(header, tensors, candidates)
    if len(guess.candidates) == 1:
        return guess.candidates[0].names
    if model is not None:
        with suppress(Unrecognized):
            return names_of(recognize(model, load_families()[0], revision))
    known = [name for candidate in guess.candidates or candidates for name in candidate.archs]
    why = "its layers fit several families" if guess.candidates else "it names no base model and its layers fit none"
    raise ValueError(f"{file}: the model family is not told: {why}; say it with {key}, one of {', '.join(known)}")
