"""Which layers a network adapts: the layer-choice rules of ai-toolkit, with a count of what each pattern matched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from toolkit.models.family import Trainable
from toolkit.models.offload import compute_device
from toolkit.networks.ranks import Ranks, Size, is_unet


class NoLayersLeft(ValueError):
    """The rules leave nothing to train in a module."""


@dataclass(frozen=True)
class Rules:
    """The keys of `network` and `network.network_kwargs` that choose layers."""

    blocks_only: bool = True
    only: Sequence[str] = ()
    ignore: Sequence[str] = ()
    full: Sequence[str] = ()
    """Layers whose name contains one of these are trained fully: a difference to every weight."""
    all_layers: bool = False
    """Train the layers that cannot be adapted (norms, embeddings, other convolutions) fully."""
    min_params: int = 0
    """Smaller layers are left out."""
    linear_inside: Sequence[str] = ()
    """Class names of modules; only Linear layers inside of them are adapted. Empty: anywhere."""
    conv_inside: Sequence[str] = ()


@dataclass(frozen=True)
class Choice:
    """The chosen layers, by name relative to the trained module, and what there is to say about the patterns."""

    names: tuple[str, ...]
    matches: tuple[tuple[str, int], ...]
    """(pattern, how many layers it matched), for `only_if_contains` and then `ignore_if_contains`."""
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Targets:
    """What the rules make of one module."""

    sizes: Mapping[str, Size]
    """The layers to adapt, and how large."""
    full: tuple[str, ...]
    """The layers to train fully."""
    known: tuple[str, ...]
    """All layers with weights, to read other files by."""
    choice: Choice
    device: torch.device
    """Where the module computes."""


def find_targets(module: nn.Module, trainable: Trainable, rules: Rules, ranks: Ranks) -> Targets:
    """Apply the rules to `module`. Raises NoLayersLeft, naming the patterns, if nothing would be trained."""
    leaves = weight_layers(module)
    able = adaptable_layers(module, conv=True)
    names = [name for name in able if _is_inside(module, name, rules) and _count(leaves[name]) >= rules.min_params]
    ranks = ranks.without_blocks() if trainable.is_text_encoder else ranks
    among = able if is_unet(able) else [name for name in able if re.fullmatch(trainable.blocks, name)]
    all_sizes = ranks.sizes({name: is_large_conv(leaves[name]) for name in names}, among)
    sizes = {name: size for name, size in all_sizes.items() if size.rank}
    left_out = set(able) - set(names)

    full = [name for name in leaves if any(_contains(trainable.prefix + name, pattern) for pattern in rules.full)]
    full = [name for name in full if not any(pattern in trainable.prefix + name for pattern in rules.ignore)]
    candidates = [name for name in (leaves if rules.all_layers else sizes) if name not in left_out.union(full)]
    blocks = trainable.blocks if rules.blocks_only else None
    try:
        choice = choose(candidates, trainable.prefix, blocks, rules.only, rules.ignore)
    except NoLayersLeft:
        if not full:
            raise
        choice = Choice((), (), ())
    full += [name for name in choice.names if name not in sizes]
    adapted = {name: sizes[name] for name in choice.names if name in sizes}
    return Targets(adapted, tuple(full), tuple(leaves), choice, compute_device(module))


def choose(
    names: Iterable[str], prefix: str, blocks: str | None, only: Sequence[str] = (), ignore: Sequence[str] = ()
) -> Choice:
    """Choose among layer `names`.

    A layer is taken if it lies in `blocks` (a regular expression; None: anywhere), if one of `only` is a substring of
    its full name `prefix + name` (dots as they are, as underscores, or as `$$`), and if none of `ignore` is a substring
    of the dotted name. Raises NoLayersLeft, naming the patterns, if nothing is left.
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
        raise NoLayersLeft(
            f"network: no layer is left to train of {len(candidates)}; patterns and their matches: "
            f"{', '.join(f'{pattern!r}: {count}' for pattern, count in matches) or 'none'}"
        )
    warnings = [warning for pattern in only for warning in _misjudged(pattern, [prefix + name for name in candidates])]
    return Choice(tuple(kept), tuple(matches), tuple(warnings))


def adaptable_layers(module: nn.Module, conv: bool = False) -> list[str]:
    """Names of all Linear layers and 1x1 convolutions, quantized ones included; `conv`: of larger ones too."""
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
        or (isinstance(layer, nn.Conv2d) and layer.groups == 1 and (conv or not is_large_conv(layer)))
    ]


def is_large_conv(layer: nn.Module) -> bool:
    """Whether `layer` is a convolution that looks at more than one cell."""
    return isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)


def weight_layers(module: nn.Module) -> dict[str, nn.Module]:
    """The layers that hold a weight of their own: Linear, convolutions, norms, embeddings."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(getattr(layer, "weight", None), torch.Tensor) and next(layer.children(), None) is None
    }


def _count(layer: nn.Module) -> int:
    return sum(param.numel() for param in layer.parameters(recurse=False))


def _is_inside(module: nn.Module, name: str, rules: Rules) -> bool:
    layer = module.get_submodule(name)
    wanted = rules.conv_inside if isinstance(layer, nn.Conv2d) else rules.linear_inside
    parts = name.split(".")
    around = [module.get_submodule(".".join(parts[:length])) for length in range(len(parts))]
    return not wanted or any(type(parent).__name__ in wanted for parent in around)


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
