"""Putting peft's layers in the place of a module's own, by exact names and with a size for each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from toolkit.networks.targets import Size

ADAPTER = "default"


def inject(
    module: torch.nn.Module, tuner: Any, config_class: Any, sizes: Mapping[str, Size], **options: Any
) -> dict[str, Any]:
    """Wrap the layers that `sizes` names by peft's `tuner`; returns its layer for each. Freezes the rest."""
    if not sizes:
        return {}
    alpha = "lora_alpha" if "lora_alpha" in config_class.__dataclass_fields__ else "alpha"
    first = next(iter(sizes.values()))
    config = config_class(
        r=first.rank,
        target_modules=_pattern(sizes),
        rank_pattern=_patterns({name: size.rank for name, size in sizes.items()}, first.rank),
        alpha_pattern=_patterns({name: size.alpha for name, size in sizes.items()}, first.alpha),
        **{alpha: first.alpha},
        **options,
    )
    tuner(module, config, adapter_name=ADAPTER)
    return {name: module.get_submodule(name) for name in sizes}


def follow_autocast(layer: torch.nn.Module) -> None:
    """Let a LyCORIS layer of peft answer in the dtype of the layer that it wraps.

    It answers in the dtype of its input, which under autocast may be wider.
    """

    def narrow(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *rest = inputs
        kind = x.device.type
        return (x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x, *rest)

    layer.register_forward_pre_hook(narrow)


def _patterns(values: Mapping[str, float], usual: float) -> dict[str, float]:
    """One pattern per unusual value: peft tries every pattern on every layer."""
    return {
        _pattern([name for name, value in values.items() if value == unusual]): unusual
        for unusual in dict.fromkeys(values.values())
        if unusual != usual
    }


def _pattern(names: Iterable[str]) -> str:
    # peft would also take layers whose names end with one of these
    return "|".join("^" + re.escape(name) for name in names)
