"""Which family a file belongs to, and which layers it names: from its header and its keys alone. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from toolkit.config.key_names import KeyNames
from toolkit.networks.keys.names import TEXT_ENCODERS, LayerNames
from toolkit.networks.keys.suffixes import split_key


@dataclass(frozen=True)
class Candidate:
    """One table of names, and the archs that have it."""

    names: KeyNames
    archs: tuple[str, ...]
    examples: tuple[str, ...] = ()
    """Repositories or folders that `base_model` in a header may name."""


@dataclass(frozen=True)
class Guess:
    """The families that a file may belong to; more than one if it cannot be told."""

    candidates: tuple[Candidate, ...]
    reason: str


def denoiser_prefix(names: KeyNames) -> str:
    """Before native names of the denoiser's layers."""
    return "unet." if names.upsamplers else "transformer."


def guess_family(header: Mapping[str, str], keys: Iterable[str], candidates: Sequence[Candidate]) -> Guess:
    """By what the header says, else by the candidates that know every layer of the denoiser."""
    said = _said(header)
    for candidate in candidates:
        if set(candidate.names.versions) & said or set(candidate.examples) & said:
            return Guess((candidate,), "by the file's header")
    stems = stems_of(keys)
    fitting = [(candidate, known_layers(candidate.names, stems)) for candidate in candidates]
    fitting = [(candidate, layers) for candidate, layers in fitting if layers]
    written = {frozenset(_written(candidate.names, layers or ())) for candidate, layers in fitting}
    found = tuple(candidate for candidate, _ in fitting)
    if len(written) == 1:
        # more than one family, but all of the file's layers have the same names in each
        archs = tuple(arch for candidate in found for arch in candidate.archs)
        return Guess((Candidate(found[0].names, archs),), "by the names of its layers")
    return Guess(found, "by the names of its layers")


def stems_of(keys: Iterable[str]) -> list[str]:
    """The layers that keys name, in order, as the file spells them."""
    return list(dict.fromkeys(split[0] for key in keys if (split := split_key(key)) is not None))


def known_layers(names: KeyNames, stems: Iterable[str]) -> list[str] | None:
    """The denoiser's layers that the file holds; None if there is one that the family does not have."""
    own = LayerNames(names, denoiser_prefix(names))
    bare = [found for stem in stems if (found := own.bare(stem)) is not None]
    table = own.table(own.vocabulary(bare))
    if not bare or any(name not in table and f"{name}_0" not in table for name in bare):
        return None
    places = [table.get(name) or table[f"{name}_0"] for name in bare]
    return list(dict.fromkeys(layer for place in places for layer in (place.parts or (place.name,))))


def layers_in(names: KeyNames, prefix: str, stems: Sequence[str]) -> list[str]:
    """Layers of one module that decoding may meet: the family's vocabulary, and what has diffusers' names anyway."""
    own = LayerNames(names, prefix)
    spelled = [stem.removeprefix(prefix) for stem in stems if stem.startswith(prefix)]
    return [*spelled, *own.vocabulary(stems)]


def key_format(stems: Sequence[str]) -> str:
    """The key format of a file by what most of its layers begin with."""
    counts = Counter(_format_of(stem) for stem in stems if not any(p.match(stem) for p in TEXT_ENCODERS.values()))
    if not counts:
        counts = Counter("kohya" if stem.startswith("lora_te") else "diffusers" for stem in stems)
    return counts.most_common(1)[0][0] if counts else "unknown"


def _format_of(stem: str) -> str:
    if stem.startswith(("transformer.", "unet.")):
        return "diffusers"
    if stem.startswith(("lora_unet_", "lora_transformer_")):
        return "kohya"
    if stem.startswith("lycoris_"):
        return "lycoris"
    if stem.startswith("base_model.model."):
        return "peft"
    return "comfyui" if stem.startswith(("diffusion_model.", "model.diffusion_model.")) else "original"


def _said(header: Mapping[str, str]) -> set[str]:
    """What a header says about the base model, in the spellings of several programs."""
    values = [header.get(key, "") for key in ("ss_base_model_version", "modelspec.architecture", "base_model")]
    return {text for value in values if value for text in (value, value.lower(), value.lower().split("/")[0])}


def _written(names: KeyNames, layers: Iterable[str]) -> Iterable[tuple[str, ...]]:
    own = LayerNames(names, denoiser_prefix(names))
    for layer in layers:
        places = [own.written(layer, format) for format in ("diffusers", "kohya", "comfyui", "original")]
        yield (layer, *(place.name for place in places), *places[1].parts)
