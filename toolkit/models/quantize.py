"""Weight-only quantization of frozen modules: optimum-quanto's types, and torchao's where it is installed."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from toolkit.models.fill import blocks
from toolkit.models.wrapped import is_wrapper, leaves

QUANTO = ("qfloat8", "qint8", "qint4", "qint2")
TORCHAO = ("int8", "int4", "float8")
QTYPES = (*QUANTO, *TORCHAO)
CPU = torch.device("cpu")
GROUPS = (128, 64, 32)
"""Sizes of the groups of weights that share a scale in torchao's int4, the preferred one first."""


@dataclass(frozen=True)
class Quantization:
    """How the Linear weights inside the blocks of a module are stored."""

    qtype: str
    exclude: tuple[str, ...] = ()
    """Globs over layer names: what stays as it is."""
    device: torch.device = CPU
    """Where it is computed."""

    def __post_init__(self) -> None:
        if self.qtype not in QTYPES:
            raise ValueError(f"model.qtype: {self.qtype!r} is not known (known: {', '.join(QTYPES)})")
        if self.qtype in TORCHAO and importlib.util.find_spec("torchao") is None:
            raise ValueError(
                f"model.qtype: {self.qtype} needs torchao: pip install 'aitk[torchao]', or take one of "
                f"{', '.join(QUANTO)}"
            )
        if self.qtype == "int4" and self.device.type != "cuda":
            raise ValueError(f"model.qtype: int4 of torchao needs a CUDA device, not {self.device.type}; take qint4")

    @property
    def versions(self) -> dict[str, str]:
        """The libraries whose change may change what is stored."""
        library = "torchao" if self.qtype in TORCHAO else "optimum-quanto"
        return {name: importlib.metadata.version(name) for name in (library, "diffusers", "transformers")}

    def apply(self, name: str, block: nn.Module) -> None:
        """Quantize the layers of `block`, named `name` in its module. Raises RuntimeError with those that failed."""
        failed = []
        for path, layer in list(self._layers(name, block)):
            try:
                layer.to(self.device)
                made = _quantized(layer, self.qtype)
            except (RuntimeError, ValueError, AssertionError, NotImplementedError) as error:
                raise RuntimeError(
                    f"quantization to {self.qtype} failed for {name}.{path}: {error}; leave it out with "
                    "model.quantize_kwargs.exclude, or take another type"
                ) from error
            if not is_quantized(made):
                failed.append(f"{name}.{path}")
            parent, _, leaf = path.rpartition(".")
            setattr(block.get_submodule(parent), leaf, made)
        if failed:
            raise RuntimeError(
                f"quantization to {self.qtype} failed for {len(failed)} layers: {', '.join(failed[:5])} "
                "(values that are not finite)"
            )

    def _layers(self, name: str, block: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
        for path, layer in block.named_modules():
            excluded = any(fnmatchcase(f"{name}.{path}", pattern) for pattern in self.exclude)
            if isinstance(layer, nn.Linear) and not excluded:
                yield path, layer


def quantize(module: nn.Module, quantization: Quantization) -> nn.Module:
    """Quantize the Linear weights inside the blocks of a module that is in memory, block by block; returns it."""
    for name, block in blocks(module):
        quantization.apply(name, block)
    return module


def is_quantized(layer: nn.Module) -> bool:
    """Whether the weight of `layer` is stored in few bits, by finite scales."""
    weight = getattr(layer, "weight", None)
    if weight is None or not is_wrapper(weight):
        return False
    scales = [leaf for leaf in leaves(weight) if leaf.dtype in (torch.float32, torch.float16, torch.bfloat16)]
    return all(bool(scale.isfinite().all()) for scale in scales)


def quanto_layer(layer: nn.Linear, qtype: str) -> Any:
    """quanto's layer in place of `layer`, with the same, unquantized weights."""
    from optimum import quanto
    from optimum.quanto.nn import QLinear

    if qtype in ("qint4", "qint2"):
        _unpack_without_compiler()
    return QLinear.from_module(layer, weights=getattr(quanto, qtype)).requires_grad_(False)


def wrapper_classes(qtype: str) -> dict[str, Any]:
    """The classes of quantized weights, and of what they hold, by name."""
    if qtype in TORCHAO:
        from torchao import quantization
        from torchao.quantization.quantize_.common import KernelPreference

        names = ("Int8Tensor", "Float8Tensor", "Int4TilePackedTo4dTensor")
        return {name: getattr(quantization, name) for name in names} | {"KernelPreference": KernelPreference}
    from optimum.quanto import WeightQBitsTensor, WeightQBytesTensor
    from optimum.quanto.tensor.packed import PackedTensor

    return {cls.__name__: cls for cls in (WeightQBitsTensor, WeightQBytesTensor, PackedTensor)}


def _quantized(layer: nn.Linear, qtype: str) -> nn.Module:
    if qtype in TORCHAO:
        return _quantized_by_torchao(layer, qtype)
    from optimum.quanto.tensor import quantize_weight

    made = quanto_layer(layer, qtype)
    kind, group = made.weight_qtype, made.weight_group_size
    found = made.optimizer(made.weight, made.weight_qtype, 0, *(() if kind.bits == 8 else (group,)))
    scale, shift = (found, None) if kind.bits == 8 else found
    options: dict[str, Any] = {} if kind.bits == 8 else {"shift": shift, "group_size": group}
    # not optimized: such weights belong to one device and need kernels that quanto compiles when it is first used
    weight = quantize_weight(made.weight, qtype=kind, axis=0, scale=scale, optimized=False, **options)
    made.weight = nn.Parameter(weight, requires_grad=False)
    return made


def _quantized_by_torchao(layer: nn.Linear, qtype: str) -> nn.Module:
    from torchao import quantization

    configs: dict[str, Callable[[], Any]] = {
        "int8": quantization.Int8WeightOnlyConfig,
        "float8": quantization.Float8WeightOnlyConfig,
        "int4": lambda: quantization.Int4WeightOnlyConfig(
            group_size=_group(layer), int4_packing_format="tile_packed_to_4d"
        ),
    }
    quantization.quantize_(nn.Sequential(layer), configs[qtype]())
    return layer.requires_grad_(False)


def _group(layer: nn.Linear) -> int:
    found = next((size for size in GROUPS if layer.in_features % size == 0), None)
    if found is None:
        raise ValueError(f"its {layer.in_features} inputs are no multiple of {GROUPS[-1]}")
    return found


@functools.cache
def _unpack_without_compiler() -> torch.library.Library:
    """Have quanto unpack 4 and 2 bits with torch: its own kernel takes a compiler, and a minute, at the first use."""
    importlib.import_module("optimum.quanto.library")  # defines the operator
    library = torch.library.Library("quanto", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it overrides something is the point
        for key in ("CPU", "CUDA"):
            library.impl("unpack", _unpack, key, allow_override=True)
    return library


def _unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Bytes that hold several values -> one value per byte; the n-th values of all bytes follow each other."""
    return torch.cat([(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)])
