"""Which layers a network adapts: the layer-choice rules of ai-toolkit, with a count of what each pattern matched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Choice:
    """The chosen layers, by name relative to the trained module, and what there is to say about the patterns."""

    names: tuple[str, ...]
    matches: tuple[tuple[str, int], ...]
    """(pattern, how many layers it matched), for `only_if_contains` and then `ignore_if_contains`."""
    warnings: tuple[str, ...]


def choose(
    names: Iterable[str], prefix: str, blocks: str | None, only: Sequence[str] = (), ignore: Sequence[str] = ()
) -> Choice:
    """Choose among layer `names`.

    A layer is taken if it lies in `blocks` (a regular expression; None: anywhere), if one of `only` is a substring of
    its full name `prefix + name` (dots as they are, as underscores, or as `$$`), and if none of `ignore` is a substring
    of the dotted name. Raises ValueError, naming the patterns, if nothing is left.
    """
    candidates = [name for name in names if blocks is None or re.fullmatch(blocks, name)]
    kept = [
        name
        for name in candidates
        if not any(pattern in prefix + name for pattern in ignore)
        and (not only or any(_contains(prefix + name, pattern) for pattern in only))
    ]
    matches = [(pattern, sum(_contains(prefix + name, pattern) for name in candidates)) for pattern in only]
    matches += [(pattern, sum(pattern in prefix + name for name in candidates)) for pattern in ignore]
    if not kept:
        raise ValueError(
            f"network: no layer is left to train of {len(candidates)}; patterns and their matches: "
            f"{', '.join(f'{pattern!r}: {count}' for pattern, count in matches) or 'none'}"
        )
    warnings = [warning for pattern in only for warning in _misjudged(pattern, [prefix + name for name in candidates])]
    return Choice(tuple(kept), tuple(matches), tuple(warnings))


def adaptable_layers(module: torch.nn.Module) -> list[str]:
    """Names of all Linear layers, quantized ones included."""
    return [name for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)]


def _contains(full: str, pattern: str) -> bool:
    return pattern in full or pattern in full.replace(".", "_") or pattern in full.replace(".", "$$")


def _misjudged(pattern: str, full_names: list[str]) -> list[str]:
    """Ways in which a substring test surprises: nothing matched, longer numbers, longer names in front."""
    matched = [name for name in full_names if _contains(name, pattern)]
    if not matched:
        return [f"only_if_contains {pattern!r} matches no layer (it is a plain substring, not a glob)"]
    warnings = []
    if pattern[-1].isdigit():
        longer = [name for name in matched if re.search(re.escape(pattern) + r"\d", name)]
        if longer:
            warnings.append(
                f"only_if_contains {pattern!r} also matches longer numbers, e.g. {longer[0]}; end it with '.'"
            )
    if pattern[0].isalpha():
        inside = [name for name in matched if re.search(r"\w" + re.escape(pattern), name)]
        if inside and len(inside) < len(matched):
            warnings.append(f"only_if_contains {pattern!r} also matches inside longer names, e.g. {inside[0]}")
    return warnings
