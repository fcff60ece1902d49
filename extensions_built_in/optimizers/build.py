"""The optimizers themselves, from the libraries that keep them; each is imported only when it is asked for.

All answer `load_state_dict(state_dict())` so that a resumed run goes on bit by bit, and each group remembers the
learning rate it was built with under `initial_lr`, which the schedule scales.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer

_log = logging.getLogger(__name__)


def adamw(
    params: Iterable[Any], lr: float, betas: tuple[float, float], eps: float, weight_decay: float, amsgrad: bool = False
) -> Optimizer:
    """Return torch's AdamW, in one kernel where the device has it."""
    params = list(params)
    options: dict[str, Any] = {"betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
    return _remember(torch.optim.AdamW(params, lr=lr, fused=_can_fuse(params), **options))


def adam(
    params: Iterable[Any], lr: float, betas: tuple[float, float], eps: float, weight_decay: float, amsgrad: bool = False
) -> Optimizer:
    """Return torch's Adam, in one kernel where the device has it."""
    params = list(params)
    options: dict[str, Any] = {"betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
    return _remember(torch.optim.Adam(params, lr=lr, fused=_can_fuse(params), **options))


def bitsandbytes_optimizer(kind: str, params: Iterable[Any], lr: float, **options: Any) -> Optimizer:
    """Return an optimizer of bitsandbytes, once an update of a throw-away weight has shown that it works here."""
    params = list(params)
    way_out = f"set train.optimizer: {'lion' if kind == 'Lion8bit' else 'adamw'}, which needs no bitsandbytes"
    try:
        import bitsandbytes
    except ImportError as error:
        raise ValueError(f"train.optimizer {kind.lower()} needs bitsandbytes ({error}); {way_out}") from error
    make = getattr(bitsandbytes.optim, kind)
    device = _tensors(params)[0].device
    trial = torch.nn.Parameter(torch.zeros(4096, device=device))
    trial.grad = torch.ones_like(trial)
    try:
        make([trial], lr=lr).step()
    except (RuntimeError, AttributeError) as error:
        # Which devices have kernels differs between its versions; on the CPU they came with 0.50.
        reason = f"bitsandbytes {bitsandbytes.__version__} cannot run {kind} on {device}"
        raise ValueError(f"{reason} ({str(error).splitlines()[0]}); {way_out}") from error
    if device.type == "cpu":
        _log.warning("an update of %s takes about 4 times as long as one of adamw on the CPU", kind.lower())
    return _remember(make(params, lr=lr, **options))


def adafactor(params: Iterable[Any], lr: float, *, relative_step: bool, **options: Any) -> Optimizer:
    """Return transformers' Adafactor: torch's always scales lr by the weights, and a LoRA starts at 0."""
    from transformers.optimization import Adafactor

    if options.get("warmup_init") and not relative_step:
        raise ValueError("optimizer_params.warmup_init needs relative_step: true")
    groups = _without_rates(params) if relative_step else list(params)
    optimizer = Adafactor(groups, lr=None if relative_step else lr, relative_step=relative_step, **options)
    return _remember(optimizer)


def prodigy(params: Iterable[Any], lr: float, *, growth_rate: float | None, **options: Any) -> Optimizer:
    """Return Prodigy; below 0.1, `lr` was meant for another optimizer, and 1 takes its place as in ai-toolkit."""
    from prodigyopt import Prodigy

    params = list(params)
    rates = {group.get("lr", lr) for group in params if isinstance(group, dict)} or {lr}
    if len(rates) > 1:
        raise ValueError(
            "train.optimizer prodigy finds one learning rate for all; leave out unet_lr, text_encoder_lr and LoRA+"
        )
    (lr,) = rates
    if lr < 0.1:
        _log.warning("train.lr: %g is read as 1.0, for prodigy finds the learning rate by itself (train.lr: 1)", lr)
        lr = 1.0
    # It prints a line about weight decay.
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = Prodigy(_without_rates(params), lr=lr, growth_rate=growth_rate or math.inf, **options)
    return _remember(optimizer)


def lion(
    params: Iterable[Any],
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    decoupled_weight_decay: bool = False,
) -> Optimizer:
    """Return lion-pytorch's Lion."""
    from lion_pytorch import Lion

    return _remember(
        Lion(
            list(params),
            lr=lr,
            betas=betas,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
        )
    )


def _remember(optimizer: Optimizer) -> Optimizer:
    """Note in each group the learning rate that the schedule's factor multiplies."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def _tensors(params: list[Any]) -> list[torch.Tensor]:
    """Return the parameters themselves, of a list of parameters or of groups."""
    return [tensor for item in params for tensor in (item["params"] if isinstance(item, dict) else [item])]


def _without_rates(params: Iterable[Any]) -> list[Any]:
    """Return parameters or groups that all take the learning rate of the optimizer."""
    return [
        {key: value for key, value in item.items() if key != "lr"} if isinstance(item, dict) else item
        for item in params
    ]


def _can_fuse(params: list[Any]) -> bool:
    """Whether torch's fused kernel takes these parameters."""
    return all(tensor.device.type in ("cpu", "cuda") and tensor.is_floating_point() for tensor in _tensors(params))
