"""A trained module's layer names in every key format: strings only, no torch. The tensors are `codec`'s business."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import TypeVar

from toolkit.config.key_names import Fused, KeyNames
from toolkit.networks.keys.unet import original_unet_name

DENOISER = re.compile(
    r"(?:base_model\.model\.|(?:model\.)?diffusion_model\.|transformer(?:_[12])?\.|unet\.|lora_unet__?|lora_unet\."
    r"|lora_transformer_|lycoris_)+"
)
TEXT_ENCODERS = {
    "text_encoder.": re.compile(r"text_encoder\.|lora_te1?[._]|text_encoders\.clip_[lh]\.transformer\."),
    "text_encoder_2.": re.compile(r"text_encoder_2\.|lora_te2[._]|text_encoders\.clip_g\.transformer\."),
}
NOT_DENOISER = re.compile(r"text_encoders?[._]|text_encoder_\d\.|lora_te\d?[._]|connectors\.|text_conditioner\.")
# in the keys of a file of ai-toolkit for both experts of a model
EXPERT = re.compile(r"(?<=\.)transformer_([12])\.")
TEXT_LAYERS = ("encoder.layers.*.{self_attn.{q_proj,k_proj,v_proj,out_proj},mlp.{fc1,fc2}}",)

T = TypeVar("T")


def of_expert(found: Mapping[str, T], part: str | None) -> dict[str, T]:
    """A file's entries without those of another expert than `part`, and without the signs of experts in the keys.

    Raises ValueError if it holds two experts and no part is named.
    """
    signs = {key: sign[1] for key in found if (sign := EXPERT.search(key))}
    own = {"2" if part.endswith("_2") else "1"} if part else set(signs.values())
    if len(own) > 1:
        raise ValueError(
            "it holds two experts; `aitk lora convert FILE --to FORMAT --part transformer` writes the first, "
            "`--part transformer_2` the second"
        )
    return {EXPERT.sub("", key, count=1): value for key, value in found.items() if signs.get(key) in (None, *own)}


@dataclass(frozen=True)
class Place:
    """Where a layer is found: the name of a layer, or one part of a fused layer."""

    name: str
    fused: Fused | None = None
    parts: tuple[str, ...] = ()
    """The layers whose rows make up the fused one."""
    is_swapped: bool = False
    """Whether the halves of its rows may be the other way round than in diffusers."""


class LayerNames:
    """The names of one module's layers; `prefix` is that of the native names."""

    def __init__(self, names: KeyNames, prefix: str) -> None:
        self.key_names = names
        self.prefix = prefix
        self.is_text = prefix.startswith("text_encoder")

    def original(self, layer: str) -> Place:
        """The layer's place in the original release."""
        if self.key_names.upsamplers:
            return Place(original_unet_name(layer, self.key_names.upsamplers))
        for fused in self.key_names.fused:
            for part in fused.parts:
                whole, count = _pattern(part).subn(_replacement(fused.original), layer)
                if count:
                    parts = tuple(_pattern(part).sub(_replacement(other), layer) for other in fused.parts)
                    return Place(self._rename(whole), fused, parts)
        name = self._rename(layer)
        return Place(name, is_swapped=name != layer and name.endswith(self.key_names.swapped))

    def written(self, layer: str, format: str) -> Place:
        """The layer's place in a file of `format`, the name complete but for what follows the last dot."""
        if self.is_text:
            return Place(self._text_name(layer, format))
        if format == "diffusers":
            return Place(self.prefix + layer)
        if format == "kohya":
            place = self.original(layer) if self.key_names.kohya == "original" else Place(layer)
            return replace(place, name="lora_unet_" + place.name.replace(".", "_"))
        if format == "comfyui":
            place = self.original(layer) if self.key_names.comfyui == "original" else Place(layer)
            return replace(place, name="diffusion_model." + place.name)
        return self.original(layer)

    def alone(self, layer: str, format: str) -> str | None:
        """Where ComfyUI looks up a part of a fused layer on its own; None: nowhere."""
        if not self.key_names.split or format == "original":
            return None
        return "lycoris_" + layer.replace(".", "_") if format == "kohya" else "transformer." + layer

    def table(self, layers: Iterable[str]) -> dict[str, Place]:
        """Bare underscored name in any format -> the layer, or the fused layer that its parts are in."""
        found: dict[str, Place] = {}
        for layer in layers:
            found.setdefault(layer.replace(".", "_"), Place(layer))
            if self.is_text:
                found.setdefault(("text_model." + layer).replace(".", "_"), Place(layer))
                continue
            place = self.original(layer)
            bare = place.name.replace(".", "_")
            found.setdefault(bare, replace(place, name=layer) if place.fused is None else place)
            if match := re.fullmatch(r"(output_blocks_\d+_)[12](_conv)", bare):
                # ahead of the upsampler there may be attention or not, which varies between the U-Nets
                for number in "12":
                    found.setdefault(match[1] + number + match[2], Place(layer))
        return found

    def bare(self, stem: str) -> str | None:
        """A key's layer as `table` names it; None if the key belongs to another module."""
        if self.is_text:
            match = TEXT_ENCODERS[self.prefix].match(stem) if self.prefix in TEXT_ENCODERS else None
            return stem[match.end() :].replace(".", "_") if match else None
        if NOT_DENOISER.match(stem):
            return None
        match = DENOISER.match(stem)
        return stem[match.end() if match else 0 :].replace(".processor.", ".").replace(".", "_")

    def vocabulary(self, stems: Iterable[str]) -> Iterator[str]:
        """All layers that the family may have, with numbers up to the largest one in `stems`."""
        largest = max((int(number) for stem in stems for number in re.findall(r"\d+", stem)), default=0)
        for pattern in TEXT_LAYERS if self.is_text else self.key_names.layers:
            for plain in expand_braces(pattern):
                heads = plain.split("*")
                for numbers in product(range(largest + 1), repeat=len(heads) - 1):
                    yield heads[0] + "".join(f"{n}{rest}" for n, rest in zip(numbers, heads[1:], strict=True))

    def _rename(self, layer: str) -> str:
        for ours, theirs in self.key_names.original:
            layer = _pattern(ours).sub(_replacement(theirs), layer)
        return layer

    def _text_name(self, layer: str, format: str) -> str:
        # newer transformers builds CLIPTextModel without the `text_model.` that all files have
        name = "text_model." + layer if layer.startswith("encoder.layers.") else layer
        if format != "kohya":
            return self.prefix + name
        number = 1 if self.prefix == "text_encoder_2." else 0
        encoders = self.key_names.text_encoders
        return f"{encoders[min(number, len(encoders) - 1)]}_{name}".replace(".", "_")


def expand_braces(pattern: str) -> list[str]:
    """'a.{b,c.{d,e}}' -> ['a.b', 'a.c.d', 'a.c.e']."""
    start = pattern.find("{")
    if start < 0:
        return [pattern]
    depth, choices, begin = 0, [], start + 1
    for place in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[place], 0)
        if (pattern[place] == "," and depth == 1) or depth == 0:
            choices.append(pattern[begin:place])
            begin = place + 1
        if depth == 0:
            break
    return [text for choice in choices for text in expand_braces(pattern[:start] + choice + pattern[begin:])]


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """Whole dotted parts; a star is a number."""
    body = re.escape(text).replace(r"\*", r"(\d+)")
    return re.compile(rf"(?<![^.]){body}(?![^.])")


@cache
def _replacement(text: str) -> str:
    """`text` as the replacement of a match, its stars filled in order."""
    pieces = text.split("*")
    return pieces[0] + "".join(rf"\g<{number}>{piece}" for number, piece in enumerate(pieces[1:], 1))
