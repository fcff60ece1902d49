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
    return vae.config.scaling_factor, getattr(vae.config, "shift_factor", None) or 0.0


def as_video(pixels: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] as videos of one frame [B, 3, 1, H, W]; videos are left as they are."""
    return pixels.unsqueeze(2) if pixels.ndim == 4 else pixels


def encode_scaled(vae: Any, pixels: Tensor) -> Tensor:
    """Pixels [B, 3, (F,) H, W] in -1..1 -> latents [B, C, (f,) h, w], normalized by one scale and shift."""
    scale, shift = scale_shift(vae)
    return (mode(vae.encode(pixels.to(vae.device, vae.dtype))).float() - shift) * scale


def decode_scaled(vae: Any, latents: Tensor) -> Tensor:
    """Latents as `encode_scaled` makes them -> pixels [B, 3, (F,) H, W] in -1..1."""
    scale, shift = scale_shift(vae)
    return vae.decode((latents / scale + shift).to(vae.device, vae.dtype), return_dict=False)[0].float()


def moments(vae: Any, dims: int) -> tuple[Tensor, Tensor]:
    """(mean, std) of a VAE's latents per channel, fp32, shaped [1, C, 1, ...] for latents of `dims` dimensions.

    Some VAEs keep them in their configuration, others among their weights; a scaling factor is part of std.
    """
    shape = (1, -1) + (1,) * (dims - 2)
    kept = vae.config if "latents_mean" in vae.config else vae
    mean, std = (torch.as_tensor(value).float().view(shape) for value in (kept.latents_mean, kept.latents_std))
    return mean, std / vae.config.get("scaling_factor", 1.0)


def encode_standardized(vae: Any, pixels: Tensor) -> Tensor:
    """Pixels [B, 3, (F,) H, W] in -1..1 -> latents [B, C, (f,) h, w], normalized channel by channel."""
    latents = mode(vae.encode(pixels.to(vae.device, vae.dtype))).float()
    mean, std = (value.to(latents.device) for value in moments(vae, latents.ndim))
    return (latents - mean) / std


def decode_standardized(vae: Any, latents: Tensor) -> Tensor:
    """Latents as `encode_standardized` makes them -> pixels [B, 3, (F,) H, W] in -1..1."""
    mean, std = (value.to(latents.device) for value in moments(vae, latents.ndim))
    latents = (latents * std + mean).to(vae.device, vae.dtype)
    # some decoders can take noise away; ours get none
    time = (latents.new_zeros(len(latents)),) if vae.config.get("timestep_conditioning") else ()
    return vae.decode(latents, *time, return_dict=False)[0].float()


def encode_patches(vae: Any, pixels: Tensor, epsilon: float) -> Tensor:
    """Pixels [B, 3, H, W] in -1..1 -> latents [B, 4 C, h, w]: 2x2 cells each, normalized by the batch norm."""
    mean, std = _batch_moments(vae, epsilon)
    cells = mode(vae.encode(pixels.to(vae.device, vae.dtype))).float()
    return (rearrange(cells, "b c (h p) (w q) -> b (c p q) h w", p=2, q=2) - mean) / std


def decode_patches(vae: Any, latents: Tensor, epsilon: float) -> Tensor:
    """Latents as `encode_patches` makes them -> pixels [B, 3, H, W] in -1..1."""
    mean, std = _batch_moments(vae, epsilon)
    cells = rearrange(latents.to(vae.device) * std + mean, "b (c p q) h w -> b c (h p) (w q)", p=2, q=2)
    return vae.decode(cells.to(vae.dtype), return_dict=False)[0].float()


def _batch_moments(vae: Any, epsilon: float) -> tuple[Tensor, Tensor]:
    """(mean, std) [1, 4 C, 1, 1] of 2x2 cells, which FLUX.2's VAE keeps as statistics of a batch norm."""
    mean, variance = (value.float().view(1, -1, 1, 1) for value in (vae.bn.running_mean, vae.bn.running_var))
    return mean, (variance + epsilon).sqrt()


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


def norm_like(yes: Tensor, out: Tensor, dim: int) -> Tensor:
    """`out` rescaled so that its norm along `dim` is that of `yes`: some families' step after guidance."""
    return out * (yes.norm(dim=dim, keepdim=True) / out.norm(dim=dim, keepdim=True))
