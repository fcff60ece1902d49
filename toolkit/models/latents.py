"""Small functions on latents that several families share: normalization, packing into tokens, position ids."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor


def mode(encoded: Any) -> Tensor:
    """The most likely latents of a VAE's output, whether it returns a distribution or the latents themselves."""
    return encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent


def scale_shift(vae: Any) -> tuple[float, float]:
    """(scale, shift) such that normalized = (latents - shift) * scale."""
    return vae.config.scaling_factor, vae.config.shift_factor or 0.0


def pack(latents: Tensor, p: int = 2) -> Tensor:
    """[B, C, h, w] -> tokens [B, h/p * w/p, C*p*p], channel slowest."""
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p)


def unpack(tokens: Tensor, h: int, w: int, p: int = 2) -> Tensor:
    """Inverse of `pack` for latents of `h` x `w` cells."""
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=h // p, w=w // p, p=p, q=p)


def grid_ids(rows: int, columns: int, first: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """Position ids (first, row, column) of a grid of tokens, row by row: [rows*columns, 3]."""
    ids = torch.zeros(rows, columns, 3, device=device)
    ids[..., 0] = first
    ids[..., 1] = torch.arange(rows, device=device)[:, None]
    ids[..., 2] = torch.arange(columns, device=device)
    return rearrange(ids, "h w d -> (h w) d")
