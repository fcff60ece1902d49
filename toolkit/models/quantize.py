"""Weight-only quantization of frozen modules with optimum-quanto."""

from __future__ import annotations

from collections.abc import Iterator

import torch

QTYPES = ("qfloat8", "qint8", "qint4")


def quantize(module: torch.nn.Module, qtype: str, device: torch.device) -> torch.nn.Module:
    """Quantize the Linear weights inside the blocks of `module` to `qtype`, block by block on `device`; returns it.

    Raises ValueError for a type that is not in QTYPES, and RuntimeError with the names of layers that failed.
    """
    from optimum import quanto

    if qtype not in QTYPES:
        raise ValueError(f"model.qtype: {qtype!r} is not known (known: {', '.join(QTYPES)})")
    found = list(blocks(module))
    inside = {layer for block in found for layer in block.modules() if isinstance(layer, torch.nn.Linear)}
    names = [name for name, layer in module.named_modules() if layer in inside]
    for block in found:
        block.to(device)
        quanto.quantize(block, weights=getattr(quanto, qtype))
        quanto.freeze(block)
    failed = [name for name in names if not is_quantized(module.get_submodule(name))]
    if failed:
        raise RuntimeError(f"quantization to {qtype} failed for {len(failed)} layers: {', '.join(failed[:5])}")
    return module


def is_quantized(layer: torch.nn.Module) -> bool:
    """Whether the weight of `layer` is stored in few bits, by finite scales."""
    from optimum import quanto

    return isinstance(layer.weight, quanto.QTensor) and bool(layer.weight._scale.isfinite().all())


def blocks(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The repeated blocks and other compound children of `module`; single layers in and out of it stay as they are."""
    for child in module.children():
        if isinstance(child, torch.nn.ModuleList):
            yield from (block for block in child if any(True for _ in block.children()))
        elif any(isinstance(part, torch.nn.ModuleList) for part in child.modules()):
            yield from blocks(child)
        elif any(True for _ in child.children()):
            yield child
