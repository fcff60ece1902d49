"""Numbers of samples as factors of their latents: what weights, noises, distances and guidance multiply by."""

from __future__ import annotations

from torch import Tensor


def column(numbers: Tensor, like: Tensor) -> Tensor:
    """Numbers [B] or [B, C], shaped to multiply `like` [B, C, ...]."""
    return numbers.reshape(*numbers.shape, *[1] * (like.ndim - numbers.ndim))


def on_device(numbers: Tensor, like: Tensor) -> Tensor:
    """Numbers [B] on the host, where `like` [B, ...] is, as fp32 and shaped to multiply it; nothing waits for that."""
    return column(numbers.float().to(like.device, non_blocking=True), like)
