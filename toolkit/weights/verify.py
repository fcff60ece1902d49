"""A LoRA-like file examined as a whole: what is broken in it, what does not fit a model, what is only noteworthy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from toolkit.config.key_names import KeyNames
from toolkit.networks.attached import change
from toolkit.networks.keys.file import add_alphas, read_tensors
from toolkit.networks.keys.hashes import sshs_hashes
from toolkit.networks.keys.names import TEXT_ENCODERS
from toolkit.networks.keys.rows import fold_alpha
from toolkit.networks.keys.suffixes import ALPHA, DOWN, LOKR, MAGNITUDE, UP, network_type, split_key
from toolkit.networks.keys.summary import read_file_header
from toolkit.weights.base import Base
from toolkit.weights.edits import layers_of
from toolkit.weights.network import read_network
from toolkit.weights.slots import bias_of

LARGE_SCALE = 64
"""alpha / rank above which a file is more likely wrong than meant."""


@dataclass
class Findings:
    """What is wrong (`problems`), what is only said (`notes`), and how much was looked at."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    layers: int = 0
    tensors: int = 0


def examine(path: Path) -> Findings:
    """Read the whole file: numbers, pairs, ranks, alphas, zero layers, hashes. Nothing is raised for what is wrong."""
    found = Findings()
    try:
        tensors, header = read_tensors(path)
    except ValueError as error:
        found.problems.append(str(error))
        return found
    layers = layers_of(tensors)
    found.layers, found.tensors = len(layers), len(tensors)
    if not layers:
        found.problems.append("no layer of a network is in it; is it a whole model?")
        return found
    found.problems += [f"{key} {text}" for key, tensor in tensors.items() if (text := _bad_numbers(tensor))]
    if strange := [key for key in tensors if split_key(key) is None]:
        found.notes.append(f"{len(strange)} keys are not of a network, e.g. {strange[0]}")
    zero = []
    for layer, keys in layers.items():
        own = {suffix: tensors[key] for suffix, key in keys.items()}
        problems = _bad_layer(own)
        found.problems += [f"{layer}: {text}" for text in problems]
        found.notes += [f"{layer}: {text}" for text in _odd_alpha(own)]
        if not problems and _is_zero(own):
            zero.append(layer)
    if len(zero) == len(layers):
        found.problems.append("all layers are zero: it changes nothing")
    elif zero:
        found.notes.append(f"{len(zero)} of {len(layers)} layers are zero and change nothing, e.g. {zero[0]}")
    kinds = Counter(network_type(set(keys)) for keys in layers.values())
    if len(kinds) > 1:
        found.notes.append(f"layers of several kinds: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}")
    _check_hashes(path, tensors, header, found)
    return found


def compare(path: Path, base: Base, names: KeyNames, part: str | None = None) -> list[str]:
    """What of the file has no place in a model: layers that it lacks, other shapes. Of the model, headers are read."""
    parts = [part] if part else base.denoisers or ["transformer"]
    return list(dict.fromkeys(text for one in parts for text in _misfits(path, base, names, one)))


def _misfits(path: Path, base: Base, names: KeyNames, part: str) -> list[str]:
    """The same for one of two experts."""
    try:
        network = read_network(path, names, part)
    except ValueError as error:
        return [str(error)]
    problems: list[str] = []
    for prefix in dict.fromkeys(prefix for prefix, _ in network.layers):
        own = {layer: tensors for (module, layer), tensors in network.layers.items() if module == prefix}
        name = prefix.removesuffix(".") if prefix in TEXT_ENCODERS else part
        if base.file is None and name and not base.has(name):
            problems.append(f"{base.name} has no {name}, and the file has {len(own)} layers of it")
            continue
        stored = base.open("" if base.file is not None else name)
        slots = base.slots(name, prefix, stored, names)
        shapes = {
            layer: (rows, *stored.kinds[weight].shape[1:], bias_of(weight) in stored)
            for weight, slot in slots.items()
            for layer, rows in zip(slot.layers, slot.rows, strict=True)
        }
        problems += [
            text for layer, tensors in own.items() for text in _misfit(prefix + layer, tensors, shapes, prefix)
        ]
    return problems


def _misfit(name: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], prefix: str) -> list[str]:
    layer = name.removeprefix(prefix)
    known = shapes.get(layer.removeprefix("text_model.")) or shapes.get(layer)
    if known is None:
        return [f"{name}: the model has no such layer"]
    *shape, has_bias = known
    if "diff_b" in tensors and not has_bias:
        return [f"{name}: changes a bias that the model does not have"]
    if set(tensors) == {"diff_b"}:
        return []
    try:
        change(tensors, tuple(shape))
    except RuntimeError:
        told = ", ".join(f"{suffix} {list(tensor.shape)}" for suffix, tensor in tensors.items())
        return [f"{name}: does not fit the model's weight of {shape} ({told})"]
    if DOWN in tensors and (len(tensors[UP]) != shape[0] or tensors[DOWN][0].numel() != torch.Size(shape[1:]).numel()):
        told = f"{len(tensors[UP])} rows of {tensors[DOWN][0].numel()}"
        return [f"{name}: does not fit the model's weight of {shape}, it is made for {told}"]
    return []


def _bad_numbers(tensor: Tensor) -> str:
    if not tensor.is_floating_point():
        return ""
    bad = int((~torch.isfinite(tensor.float())).sum())
    return f"has {bad} of {tensor.numel()} numbers that are NaN or infinite" if bad else ""


def _bad_layer(own: Mapping[str, Tensor]) -> list[str]:
    """What does not pair up in one layer."""
    if set(own) == {MAGNITUDE}:
        return ["has magnitudes of a DoRA and nothing else"]
    try:
        folded = fold_alpha(own, "layer")
        if "hada_w1_a" in folded and "hada_t1" not in folded:
            _ = (folded["hada_w1_a"].float() @ folded["hada_w1_b"].float()).shape
            if [folded[f"hada_w1_{side}"].shape[side == "b"] for side in "ab"] != [
                folded[f"hada_w2_{side}"].shape[side == "b"] for side in "ab"
            ]:
                return ["the two products of the LoHa have different shapes"]
    except (ValueError, RuntimeError, KeyError, IndexError) as error:
        return [" ".join(str(error).removeprefix("layer: ").split())]
    return []


def _odd_alpha(own: Mapping[str, Tensor]) -> list[str]:
    if ALPHA not in own or DOWN not in own or own[ALPHA].numel() != 1:
        return []
    alpha, rank = float(own[ALPHA]), len(own[DOWN])
    if alpha == 0 or rank == 0:
        return [f"{'alpha' if rank else 'the rank'} is 0, so that it changes nothing"]
    return [f"alpha {alpha:g} is {alpha / rank:.0f} times the rank {rank}"] if abs(alpha) > LARGE_SCALE * rank else []


def _is_zero(own: Mapping[str, Tensor]) -> bool:
    if ALPHA in own and float(own[ALPHA]) == 0:
        return True
    if DOWN in own:
        return not own[DOWN].any() or not own[UP].any()
    if set(own) & set(LOKR):
        sides = [[tensor for suffix, tensor in own.items() if suffix.startswith(f"lokr_w{n}")] for n in (1, 2)]
        return any(not tensor.any() for side in sides for tensor in side)
    return all(not tensor.any() for tensor in own.values()) or any(
        not tensor.any() for suffix, tensor in own.items() if suffix.startswith("hada_")
    )


def _check_hashes(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str], found: Findings) -> None:
    """Compare the hashes in the header with those of the tensors that are stored."""
    if "sshs_model_hash" not in header:
        found.notes.append("the header has no sshs_model_hash")
        return
    added = add_alphas(tensors, header).keys() - read_file_header(path)[0].keys()
    stored = {key: tensor.contiguous() for key, tensor in tensors.items() if key not in added}
    true = sshs_hashes(stored, {key: value for key, value in header.items() if not key.startswith("sshs_")})
    if header["sshs_model_hash"] != true["sshs_model_hash"]:
        found.problems.append(
            "sshs_model_hash in the header is not that of the tensors: they were changed afterwards, or are damaged "
            "(`aitk lora metadata` writes the hashes anew)"
        )
    elif header.get("sshs_legacy_hash", true["sshs_legacy_hash"]) != true["sshs_legacy_hash"]:
        found.notes.append("sshs_legacy_hash, which covers the header too, is not that of the file")
