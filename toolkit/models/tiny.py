"""What the tiny instances of all families share."""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def fill_zeros(module: Any) -> Any:
    """Noise in all parameters that are zero, so that a tiny random network does not answer 0 to everything."""
    for parameter in module.parameters():
        if not parameter.any():
            parameter.normal_(std=0.1)
    return module
