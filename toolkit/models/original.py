"""Single files: one part, or a whole checkpoint, in the layout of its first release, of ComfyUI or of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.models.fill import check_names, missing_names, names_in_file
from toolkit.models.weights import Weights, weights_of

DENOISER = ("model.diffusion_model.", "diffusion_model.", "transformer.", "unet.")
VAE = ("first_stage_model.", "vae.")
TEXT = (
    "conditioner.embedders.0.transformer.",
    "conditioner.embedders.1.model.",
    "cond_stage_model.transformer.",
    "cond_stage_model.model.",
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_g.transformer.",
    "text_encoders.t5xxl.transformer.",
)
"""What stands before the names of a part in a file that holds several."""
RESTORED = {"UNet2DConditionModel": "model.diffusion_model."}
"""Prefix that diffusers' conversion of a class insists on."""

Reading = tuple[Mapping[str, Tensor], list[str]]
"""The tensors under the names of the module, and the names in the file that it does not take."""


def holds(path: Path, part: str, module: Any) -> bool:
    """Whether a file that may hold several parts holds all of `part`, which is `module`."""
    readings = _readings(weights_of([path]), module, _prefixes(part))
    return any(not missing_names(module, tensors) and _fits(tensors, module) for tensors, _ in readings)


def read_single_file(path: Path, part: str, module: Any) -> tuple[Mapping[str, Tensor], Callable[[], None]]:
    """The tensors of `part` under the names of `module`, and what lets go of the file.

    Raises ValueError with the missing and the unknown names if they are not all there in any known layout.
    """
    weights = weights_of([path])
    best: Reading | None = None
    for reading in _readings(weights, module, (*_prefixes(part), "")):
        missing = missing_names(module, reading[0])
        if not missing and _fits(reading[0], module):
            best = reading
            break
        if best is None or len(missing) < len(missing_names(module, best[0])):
            best = reading
    if best is None:
        raise ValueError(f"{path} holds nothing that could be the {part}")
    check_names(module, best[0], best[1], str(path))
    return best[0], weights.close


def _prefixes(part: str) -> tuple[str, ...]:
    if part.startswith("vae"):
        return VAE
    return TEXT if part.startswith("text_encoder") else DENOISER


def _readings(weights: Weights, module: Any, prefixes: Sequence[str]) -> Iterator[Reading]:
    """The ways to read the file as `module`: below each prefix, with the library's names or converted to them."""
    for prefix in prefixes:
        found = weights.below(prefix)
        if not found:
            continue
        names = names_in_file(module, found)
        if names is not None:
            yield found.renamed(names), sorted(set(found) - set(names.values()))
        converted = _converted(found, prefix, module)
        if converted is not None:
            wanted = module.state_dict()
            yield converted, sorted(set(converted) - set(wanted))


def _fits(tensors: Mapping[str, Tensor], module: Any) -> bool:
    """Whether the shapes agree, by which the two text encoders of one file are told apart."""
    wanted = module.state_dict()
    shapes = tensors.shape if isinstance(tensors, Weights) else lambda name: tensors[name].shape
    return all(tuple(shapes(name)) == tuple(wanted[name].shape) for name in tensors if name in wanted)


def _converted(found: Weights, prefix: str, module: Any) -> dict[str, Tensor] | None:
    """The tensors with diffusers' names, by diffusers' own conversion of the class; None if there is none.

    What is only renamed or split stays a view of the file.
    """
    if prefix.endswith(".model.") and hasattr(module, "base_model_prefix"):
        return _converted_open_clip(found, module)
    from diffusers.loaders import single_file_model, single_file_utils  # noqa: F401

    name = single_file_model._get_single_file_loadable_mapping_class(type(module))
    if name is None:
        return None
    convert = single_file_model.SINGLE_FILE_LOADABLE_CLASSES[name]["checkpoint_mapping_fn"]
    restored = RESTORED.get(name, "")
    tensors = {f"{restored}{key}": found[key] for key in found}
    try:
        return convert(checkpoint=tensors, config=dict(module.config))
    except (KeyError, IndexError, ValueError, RuntimeError, TypeError, AttributeError):
        # the converters do not check what they are given; the other readings, or the comparison of names, say more
        return None


def _converted_open_clip(found: Weights, module: Any) -> dict[str, Tensor] | None:
    """OpenCLIP's text encoder (SD 2, the second one of SDXL) with the names of transformers."""
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    if "text_projection" not in found and not any(name.startswith("transformer.resblocks.") for name in found):
        return None
    tensors = convert_open_clip_checkpoint(module, {f"model.{name}": found[name] for name in found}, prefix="model.")
    names = names_in_file(module, tensors)
    return {name: torch.as_tensor(tensors[key]) for name, key in (names or {}).items()}
