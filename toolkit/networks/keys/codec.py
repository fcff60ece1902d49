"""What a network's tensors are called in a file: from our native names to the chosen key format, and from any back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from toolkit.config.key_names import FORMATS, KeyNames
from toolkit.networks.keys.names import LayerNames, Place
from toolkit.networks.keys.rows import Layer, fold_alpha, fuse, swap_halves, unfuse, written_alpha
from toolkit.networks.keys.suffixes import ALPHA, DIFF, MAGNITUDE, UP, WRITTEN, split_key

__all__ = ["FORMATS", "Codec"]


class Codec:
    """The key names of one trained module; native names are `<prefix><layer>.<suffix>`."""

    def __init__(self, names: KeyNames, prefix: str, format: str = "diffusers") -> None:
        if format == "auto":
            format = names.default
        if format not in FORMATS:
            raise ValueError(f"there is no key format '{format}'; known: {', '.join(FORMATS)}")
        self.names = LayerNames(names, prefix)
        self.prefix = prefix
        self.format = format

    def encode(self, native: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors under the names in which they are written. Raises ValueError where the format has no place."""
        layers = self.by_layer(native)
        written: dict[str, Tensor] = {}
        done: set[str] = set()
        for name, layer in layers.items():
            if name in done:
                continue
            place = self.names.written(name, self.format)
            if place.fused is None:
                written |= self._spell(place.name, swap_halves(layer, place.name) if place.is_swapped else layer)
                continue
            done |= set(place.parts)
            written |= self._encode_fused(place, layers)
        return written

    def decode(self, found: Mapping[str, Tensor], layers: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of a file, in any format, that belong to this module, under native names, alpha folded in.

        Keys of other modules are left out. Raises ValueError for keys of this module that name none of `layers`.
        """
        layers = list(layers)
        table = self.names.table(layers)
        groups: dict[str, tuple[Place, Layer]] = {}
        unknown = []
        for key, tensor in found.items():
            stem, suffix = split_key(key) or (key, "")
            bare = self.names.bare(stem)
            if bare is None:
                continue
            place = table.get(bare) or table.get(f"{bare}_0")  # old diffusers files drop the 0 of to_out.0
            if place is None or not suffix:
                unknown.append(key)
                continue
            groups.setdefault(bare, (place, {}))[1][suffix] = tensor
        if unknown:
            raise ValueError(_describe_unknown(unknown, len(found)))
        native: dict[str, Tensor] = {}
        for place, layer in groups.values():
            for name, part in self._decode_layer(place, layer):
                native |= {f"{self.prefix}{name}.{suffix}": tensor for suffix, tensor in part.items()}
        return native

    def _decode_layer(self, place: Place, layer: Layer) -> Iterable[tuple[str, Layer]]:
        folded = fold_alpha(layer, place.name)
        if place.fused is not None:
            parts = unfuse(folded, place.fused, place.name)
            return [(name, part) for name, part in zip(place.parts, parts, strict=True) if part is not None]
        return [(place.name, swap_halves(folded, place.name) if place.is_swapped else folded)]

    def _encode_fused(self, place: Place, layers: Mapping[str, Layer]) -> dict[str, Tensor]:
        assert place.fused is not None
        whole = fuse([layers.get(part) for part in place.parts], place.fused, place.name)
        if whole is not None:
            return self._spell(place.name, whole)
        written: dict[str, Tensor] = {}
        for part in place.parts:
            alone = self.names.alone(part, self.format)
            if alone is None:
                raise ValueError(
                    f"{place.name}: the layers that the format {self.format} fuses cannot be fused for LoKr; "
                    "use the key format diffusers"
                )
            if part in layers:
                written |= self._spell(alone, layers[part])
        return written

    def _spell(self, name: str, layer: Layer) -> dict[str, Tensor]:
        """One layer's tensors as the format spells them."""
        spellings = WRITTEN[self.format]
        written = {f"{name}.{spellings.get(suffix, suffix)}": tensor for suffix, tensor in layer.items()}
        if MAGNITUDE in layer and MAGNITUDE in spellings:
            shape = (-1, *[1] * (layer[UP].ndim - 1))
            written[f"{name}.{spellings[MAGNITUDE]}"] = layer[MAGNITUDE].reshape(shape)
        if self.format == "kohya" and not set(layer) <= set(DIFF):
            written[f"{name}.{ALPHA}"] = written_alpha(layer)
        return written

    def by_layer(self, native: Mapping[str, Tensor]) -> dict[str, Layer]:
        """Native tensors of this module by layer and suffix."""
        layers: dict[str, Layer] = {}
        for key, tensor in native.items():
            split = split_key(key.removeprefix(self.prefix))
            if split is None or not key.startswith(self.prefix):
                raise ValueError(f"{key} is not the name of a network's tensor below '{self.prefix}'")
            layers.setdefault(split[0], {})[split[1]] = tensor
        return layers


def _describe_unknown(unknown: list[str], total: int) -> str:
    return (
        f"{len(unknown)} of {total} keys name no layer of this network, e.g. {', '.join(unknown[:3])}: "
        "the file belongs to another model, or to a network of other layers"
    )
