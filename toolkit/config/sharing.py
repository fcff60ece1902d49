"""Whether the weights of a full fine-tune can be shared out over several GPUs: `train.fsdp`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.config.section import Remarked

if TYPE_CHECKING:
    from toolkit.config.sections.train import TrainSection

ELEMENTWISE = ("adamw", "adam")
"""Optimizers that treat each number by itself, so that a part of a weight is trained as it would be in the whole."""


def why_not_shared(train: TrainSection, network: Any, words: Any) -> Remarked | None:
    """The key that is against it, and what to do; None if it can be done."""
    if network is not None:
        return ("train", "fsdp"), "is for training the model itself; a network is small, leave it out"
    if words is not None or train.train_text_encoder:
        return ("train", "fsdp"), "shares out the denoiser alone; text encoders cannot be trained with it"
    if train.optimizer not in ELEMENTWISE:
        return (
            "train",
            "optimizer",
        ), f"cannot train weights that are shared out (fsdp); use {' or '.join(ELEMENTWISE)}"
    if train.dtype == "fp16":
        return ("train", "dtype"), "fp16 cannot be combined with fsdp; use bf16"
    if train.ema_config.use_ema:
        return ("train", "ema_config"), "an average cannot be combined with fsdp; set use_ema: false"
    return None
