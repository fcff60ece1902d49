"""Low-rank matrices of another rank: padded, cut by singular values, or factored from a whole matrix."""

from __future__ import annotations

import torch
from torch import Tensor


def resize_rank(down: Tensor, up: Tensor, fresh: Tensor) -> tuple[Tensor, Tensor]:
    """(down, up) with the rank of `fresh`, an untrained `down`: `up @ down` is kept, or its nearest of lower rank.

    down: [r, n], up: [m, r], fresh: [R, n]; rows that are added start as `fresh` has them, their columns at zero.
    """
    rank, wanted = len(down), len(fresh)
    if wanted >= rank:
        return torch.cat([down, fresh[rank:].to(down)]), torch.nn.functional.pad(up, (0, wanted - rank))
    # the product itself can be very large; its singular values are those of this small matrix
    q_up, r_up = torch.linalg.qr(up)
    q_down, r_down = torch.linalg.qr(down.T)
    cut_down, cut_up = factor(r_up @ r_down.T, wanted)
    return cut_down @ q_down.T, q_up @ cut_up


def factor(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(down [rank, n], up [m, rank]) with `up @ down` nearest to `matrix` [m, n]; singular values shared by both."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    root = s[:rank].sqrt()
    down, up = root[:, None] * v[:rank], u[:, :rank] * root
    missing = rank - len(root)
    return torch.nn.functional.pad(down, (0, 0, 0, missing)), torch.nn.functional.pad(up, (0, missing))
