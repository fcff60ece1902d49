"""Which stored weight is which layer: in a part of a diffusers folder, and in a single file of any layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.config.key_names import KeyNames
from toolkit.models.original import DENOISER, TEXT, VAE
from toolkit.networks.keys.names import LayerNames
from toolkit.networks.keys.rows import part_rows
from toolkit.weights.stored import Kind

TEXT_PLACES = {
    "text_encoder.": (TEXT[0], TEXT[2], TEXT[3], TEXT[4], "text_encoder."),
    "text_encoder_2.": (TEXT[1], TEXT[5], "text_encoder_2."),
}
"""Prefix of native names -> what stands before the names of that text encoder in files that hold several parts."""
_OPEN_CLIP = {
    "attn.in_proj_weight": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.out_proj.weight": ("self_attn.out_proj",),
    "mlp.c_fc.weight": ("mlp.fc1",),
    "mlp.c_proj.weight": ("mlp.fc2",),
}
_RESBLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Slot:
    """The layers whose rows make up a stored weight, from the top."""

    layers: tuple[str, ...]
    rows: tuple[int, ...]
    is_swapped: bool = False
    """Whether its halves are the other way round than in the layer."""

    def split(self, stored: Tensor) -> list[Tensor]:
        """What each layer has of a stored weight or bias."""
        return list(self._turned(stored).split(list(self.rows)))

    def join(self, parts: list[Tensor]) -> Tensor:
        """The stored tensor again."""
        return self._turned(torch.cat(parts) if len(parts) > 1 else parts[0])

    def _turned(self, tensor: Tensor) -> Tensor:
        return torch.cat(tensor.chunk(2)[::-1]) if self.is_swapped else tensor


def slots_of_part(kinds: Mapping[str, Kind]) -> dict[str, Slot]:
    """Name of a weight -> its slot, in a part of a diffusers folder."""
    found = {}
    for name, kind in kinds.items():
        if name.endswith(".weight") and kind.shape:
            found[name] = Slot((_without_text_model(name.removesuffix(".weight")),), (kind.shape[0],))
    return found


def slots_in_file(kinds: Mapping[str, Kind], names: KeyNames, prefix: str) -> dict[str, Slot]:
    """Name of a weight -> its slot, for the module with that prefix in a single file."""
    if prefix in TEXT_PLACES:
        return _text_slots(kinds, TEXT_PLACES[prefix])
    start = next((start for start in DENOISER if any(name.startswith(start) for name in kinds)), "")
    own = LayerNames(names, prefix)
    bare = {
        name: stem
        for name in kinds
        if name.startswith(start or "") and name.endswith(".weight") and not name.startswith((*VAE, *TEXT))
        if (stem := own.bare(name.removesuffix(".weight"))) is not None and kinds[name].shape
    }
    spelled = [name.removesuffix(".weight").removeprefix(start) for name in bare]
    table = own.table([*own.vocabulary(bare.values()), *spelled])
    found = {}
    for name, stem in bare.items():
        place, shape = table[stem], kinds[name].shape
        columns = shape[1] if len(shape) > 1 else 1
        if place.fused is not None:
            found[name] = Slot(place.parts, tuple(part_rows(shape[0], columns, place.fused, name)))
        else:
            found[name] = Slot((place.name,), (shape[0],), place.is_swapped and shape[0] == 2 * columns)
    return found


def bias_of(weight: str) -> str:
    """The name of the bias beside a weight."""
    return weight.removesuffix("weight") + "bias"


def _text_slots(kinds: Mapping[str, Kind], starts: tuple[str, ...]) -> dict[str, Slot]:
    found = {}
    for name, kind in kinds.items():
        start = next((start for start in starts if name.startswith(start)), None)
        if start is None or not kind.shape:
            continue
        rest = name.removeprefix(start)
        block = _RESBLOCK.fullmatch(rest)
        if block is not None and block[2] in _OPEN_CLIP:
            layers = tuple(f"encoder.layers.{block[1]}.{layer}" for layer in _OPEN_CLIP[block[2]])
            found[name] = Slot(layers, (kind.shape[0] // len(layers),) * len(layers))
        elif rest.endswith(".weight"):
            found[name] = Slot((_without_text_model(rest.removesuffix(".weight")),), (kind.shape[0],))
    return found


def _without_text_model(layer: str) -> str:
    """Files have CLIP's `text_model.`, newer transformers does not; key formats know both."""
    return layer.removeprefix("text_model.")
