"""Reading a LoRA-like file of any program: tensors, header, and the alphas that diffusers keeps in the header."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from toolkit.config.errors import naming
from toolkit.networks.keys.suffixes import ADAPTER_CONFIG, ALPHA, DOWN, split_key


def read_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, header) of a safetensors file; alphas in the header of diffusers become `.alpha` tensors.

    Raises ValueError if it is no safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except Exception as error:
        # safetensors raises a class of its own that is not exported everywhere
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    with naming(str(path)):
        return add_alphas(tensors, header), header


def read_sound(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The same. Raises ValueError if a number is NaN or infinite too: whatever is made with it would be as well."""
    tensors, header = read_tensors(path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise ValueError(f"{path}: {name} holds NaN or infinite numbers; `aitk lora verify` lists all such layers")
    return tensors, header


def add_alphas(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> dict[str, Tensor]:
    """`tensors` with one `.alpha` per layer, where the header has a configuration of peft and the layer none.

    Raises ValueError for a configuration that cannot be read.
    """
    if ADAPTER_CONFIG not in header:
        return dict(tensors)
    try:
        return {**_alphas(tensors, json.loads(header[ADAPTER_CONFIG])), **tensors}
    except (ValueError, TypeError, AttributeError, re.error) as error:
        raise ValueError(f"{ADAPTER_CONFIG} in its header, where the alphas are, cannot be read: {error}") from error


def _alphas(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The alphas of all layers of the parts that a configuration of peft is about."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, suffix = split_key(name) or ("", "")
        part, _, layer = stem.partition(".")
        if suffix != DOWN or f"{part}.lora_alpha" not in config:
            continue
        alpha = float(_for_layer(config.get(f"{part}.alpha_pattern") or {}, layer, config[f"{part}.lora_alpha"]))
        if config.get(f"{part}.use_rslora"):
            alpha *= tensor.shape[0] ** 0.5
        found[f"{stem}.{ALPHA}"] = torch.tensor(alpha)
    return found


def _for_layer(patterns: Mapping[str, Any], layer: str, default: Any) -> Any:
    """peft's rule: a pattern is a regular expression for the end of the name, from a dot on."""
    return next((value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", layer)), default)
