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
    weights = getattr(quanto, qtype)
    for block in blocks(module):
        block.to(device)
        quanto.quantize(block, weights=weights)
        quanto.freeze(block)
    failed = [
        name for name, layer in module.named_modules() if isinstance(layer, quanto.QModuleMixin) and not layer.frozen
    ]
    if failed:
        raise RuntimeError(f"quantization to {qtype} failed for {len(failed)} layers: {', '.join(failed[:5])}")
    return module


def blocks(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The repeated blocks and other compound children of `module`; single layers in and out of it stay as they are."""
    for child in module.children():
        if any(isinstance(part, torch.nn.ModuleList) for part in child.modules()) and list(child.children()):
            yield from blocks(child) if not isinstance(child, torch.nn.ModuleList) else child
        elif list(child.children()):
            yield child
