"""torch.compile of a denoiser, as a whole or block by block."""

from __future__ import annotations

from typing import Any

import torch

from toolkit.models.offload import repeated_layers


def compile_module(
    module: Any, *, by_block: bool, mode: str, fullgraph: bool, dynamic: bool, num_variants: int | None
) -> Any:
    """Have `module` compiled when it is first called, after a network was put into it; names of layers stay."""
    if num_variants is not None:
        torch._dynamo.config.recompile_limit = num_variants
    # blocks of one class share what was compiled
    for part in repeated_layers(module) if by_block else [module]:
        part.compile(mode=mode, fullgraph=fullgraph, dynamic=dynamic)
    return module
