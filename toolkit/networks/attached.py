"""Networks that are not trained: merged into the weights while a part is loaded, or added to what its layers give.

`lora_path` is merged, `assistant_lora_path` and `inference_lora_path` are added, so that they can be switched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.config.key_names import KeyNames
from toolkit.models.family import Trainable
from toolkit.models.fill import blocks
from toolkit.models.hub import Root, is_single_file, single_file
from toolkit.models.offload import compute_device
from toolkit.models.parts import Parts
from toolkit.models.source import fingerprint
from toolkit.models.wrapped import is_wrapper
from toolkit.networks.keys.codec import Codec
from toolkit.networks.keys.file import read_sound
from toolkit.networks.keys.names import of_expert
from toolkit.networks.keys.suffixes import DOWN, MAGNITUDE, UP

Layer = Mapping[str, Tensor]
"""The native tensors of one layer by suffix."""
USUAL_FILE = "pytorch_lora_weights.safetensors"


def network_file(name: str) -> Path:
    """The file of a network: a path, `owner/repo/file.safetensors`, or a folder or Hub repository that holds one."""
    if is_single_file(name):
        return single_file(name)
    root = Root(name)
    if root.folder is not None:
        files = sorted(root.folder.glob("*.safetensors"))
        if len(files) != 1:
            raise ValueError(f"{name} holds {len(files)} .safetensors files: name one of them")
        return files[0]
    return root.file(USUAL_FILE)


def merge_at_load(
    parts: Parts, trainables: Sequence[Trainable], names: KeyNames, path: str, strength: float = 1
) -> None:
    """Have the network at `path` merged into these parts whenever they are loaded, before they are quantized.

    Raises ValueError if the file holds nothing for one of them.
    """
    file = network_file(path)
    modules = {one: parts.source.empty(one.part, parts.dtype) for one in trainables}
    parts.edits |= {
        one.part: MergedNetwork(file, layers, strength) for one, layers in _read_layers(file, path, modules, names)
    }


def attach(
    modules: Mapping[Trainable, nn.Module], names: KeyNames, path: str, strength: float = 1
) -> list[FrozenNetwork]:
    """Add the network at `path` to loaded modules, before what is trained is built; it acts with `strength`.

    Raises ValueError if the file holds nothing for one of them.
    """
    found = _read_layers(network_file(path), path, modules, names)
    return [attach_layers(modules[one], layers, path, strength) for one, layers in found]


def attach_layers(module: nn.Module, tensors: Mapping[str, Layer], path: str, strength: float = 1) -> FrozenNetwork:
    """The same with layers that were read. Raises ValueError, naming `path`, for updates of another model's weights."""
    for name, layer in tensors.items():
        _check_factors(path, name, layer, tuple(module.get_parameter(f"{name}.weight").shape))
    return FrozenNetwork(module, tensors, strength)


def _check_factors(path: str, name: str, layer: Layer, shape: tuple[int, ...]) -> None:
    """ValueError if two low-rank factors do not make an update of a weight of `shape`."""
    if DOWN not in layer or UP not in layer:
        return
    made = (layer[UP].shape[0], layer[DOWN][0].numel())
    if made != (shape[0], math.prod(shape[1:])):
        raise ValueError(
            f"{path}: {name} changes a weight of {list(made)}, but that of the model is {list(shape)}: "
            "the file belongs to another model"
        )


def _read_layers(
    file: Path, path: str, modules: Mapping[Trainable, nn.Module], names: KeyNames
) -> list[tuple[Trainable, dict[str, dict[str, Tensor]]]]:
    """What a file in any key format holds for each module, as `group_layers` gives it; `path` is its name in errors."""
    tensors, _ = read_sound(file)
    found = [
        (one, group_layers(of_expert(tensors, one.part), one.prefix, names, layer_names(module)))
        for one, module in modules.items()
    ]
    for one, layers in found:
        if not layers:
            raise ValueError(f"{path}: none of its layers belongs to {one.part}")
    return found


def group_layers(
    found: Mapping[str, Tensor], prefix: str, names: KeyNames, layers: Sequence[str]
) -> dict[str, dict[str, Tensor]]:
    """Layer -> suffix -> tensor, of the tensors of a file as far as they belong to the module with this prefix."""
    codec = Codec(names, prefix)
    return codec.by_layer(codec.decode(found, layers))


class MergedNetwork:
    """A change of weights at load time: an Edit of `toolkit.models.parts`."""

    def __init__(self, file: Path, tensors: Mapping[str, Layer], strength: float) -> None:
        self.tensors, self.strength = tensors, strength
        self.digest = f"{fingerprint(file).hex()} x {strength}"

    @torch.no_grad()
    def apply(self, prefix: str, block: nn.Module) -> None:
        """Change the layers of a block; with the prefix "", those that lie in no block."""
        inside: set[nn.Module] = set()
        if not prefix:
            inside = {part for _, one in blocks(block) for part in one.modules()}
        for path, layer in block.named_modules(prefix=prefix):
            if path in self.tensors and layer not in inside:
                _merge(layer, self.tensors[path], self.strength)


class FrozenNetwork:
    """Frozen updates of the layers of a module, on top of whatever weights they have."""

    def __init__(self, module: nn.Module, tensors: Mapping[str, Layer], strength: float) -> None:
        self.strength = strength
        device = compute_device(module)
        self._handles = [
            module.get_submodule(name).register_forward_hook(self._hook(module.get_submodule(name), layer, device))
            for name, layer in tensors.items()
        ]

    @contextmanager
    def scaled(self, strength: float) -> Iterator[None]:
        """Act with `strength` inside the block; 0 switches it off."""
        kept, self.strength = self.strength, strength
        try:
            yield
        finally:
            self.strength = kept

    def remove(self) -> None:
        """Take it off the module."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, layer: Any, tensors: Layer, device: torch.device) -> Any:
        dtype = layer.weight.dtype
        bias = tensors["diff_b"].to(device, dtype) if "diff_b" in tensors else None
        tensors = {suffix: tensor for suffix, tensor in tensors.items() if suffix != "diff_b"}
        is_product = DOWN in tensors and UP in tensors and MAGNITUDE not in tensors
        down = (tensors[DOWN] if is_product else _whole_change(layer, tensors)).to(device, dtype)
        up = tensors[UP].to(device, dtype) if is_product else None

        def add(layer: Any, args: tuple[Any, ...], out: Tensor) -> Tensor | None:
            if self.strength == 0:
                return None
            update = _compute(layer, args[0].to(down.dtype), down)
            if up is not None:
                update = _compute_pointwise(update, up)
            if bias is not None:
                # along the last axis, or the channels of a convolution
                update = update + bias.view(-1, *(1,) * (down.ndim - 2))
            return out + (self.strength * update).to(out.dtype)

        return add


def _whole_change(layer: Any, tensors: Layer) -> Tensor:
    """What a network adds to the weight of `layer`; a DoRA turns it and gives its rows their length, in fp32."""
    shape = tuple(layer.weight.shape)
    if not tensors:
        # only the bias changes
        return torch.zeros(shape)
    if MAGNITUDE not in tensors:
        return change(tensors, shape)
    weight = (layer.weight.dequantize() if is_wrapper(layer.weight) else layer.weight).detach().float()
    moved = {suffix: tensor.to(weight.device) for suffix, tensor in tensors.items()}
    turned = weight + change({key: value for key, value in moved.items() if key != MAGNITUDE}, shape)
    length = moved[MAGNITUDE].float().flatten() / turned.flatten(1).norm(dim=1)
    return turned * length.view(-1, *(1,) * (turned.ndim - 1)) - weight


def change(tensors: Layer, shape: tuple[int, ...]) -> Tensor:
    """What a network adds to a weight of `shape`, in fp32."""
    layer = {suffix: tensor.float() for suffix, tensor in tensors.items()}
    if DOWN in layer:
        return (layer[UP].flatten(1) @ layer[DOWN].flatten(1)).reshape(shape)
    if "hada_w1_a" in layer and "hada_t1" not in layer:
        first, second = (layer[f"hada_w{n}_a"] @ layer[f"hada_w{n}_b"] for n in (1, 2))
        return (first * second).reshape(shape)
    if "lokr_t2" not in layer and any(suffix.startswith("lokr_w1") for suffix in layer):
        first, second = (_factor(layer, n) for n in (1, 2))
        return torch.kron(first.reshape(*first.shape, *(1,) * (second.ndim - 2)), second).reshape(shape)
    if "diff" in layer:
        return layer["diff"].reshape(shape)
    raise ValueError(f"a network with {', '.join(sorted(layer))} is not read")


def merged(weight: Tensor, tensors: Layer, strength: float) -> Tensor:
    """`weight` with what a network makes of it, in fp32; rows get the norms of a DoRA's magnitudes."""
    whole = weight.float() + strength * change(tensors, tuple(weight.shape))
    if MAGNITUDE in tensors:
        norm = whole.flatten(1).norm(dim=1)
        whole *= (tensors[MAGNITUDE].float().flatten() / norm).view(-1, *(1,) * (whole.ndim - 1))
    return whole


def _factor(layer: Layer, number: int) -> Tensor:
    whole = layer.get(f"lokr_w{number}")
    if whole is not None:
        return whole
    up, down = layer[f"lokr_w{number}_a"], layer[f"lokr_w{number}_b"]
    return (up @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def _merge(layer: Any, tensors: Layer, strength: float) -> None:
    weight = layer.weight
    device = weight.device
    moved = {suffix: tensor.to(device) for suffix, tensor in tensors.items()}
    if set(moved) != {"diff_b"}:
        weight.copy_(merged(weight, moved, strength))
    if "diff_b" in moved:
        layer.bias.copy_(layer.bias.float() + strength * moved["diff_b"].float())


def _compute(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    """What `layer` would give with another weight and no bias."""
    if weight.ndim == 2:
        return functional.linear(x, weight)
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[weight.ndim - 3]
    return convolve(x, weight, None, layer.stride, layer.padding, layer.dilation)


def _compute_pointwise(x: Tensor, weight: Tensor) -> Tensor:
    if weight.ndim == 2:
        return functional.linear(x, weight)
    return (functional.conv1d, functional.conv2d, functional.conv3d)[weight.ndim - 3](x, weight)


def layer_names(module: nn.Module) -> list[str]:
    """The names of the layers that have a weight."""
    return [name for name, part in module.named_modules() if "weight" in part._parameters]
