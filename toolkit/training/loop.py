"""The training loop. Read from top to bottom: batches, loss, backward, step, hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from toolkit.context import Context
from toolkit.data.loader import Position
from toolkit.networks.shared import is_shared
from toolkit.training.batch import Batch
from toolkit.training.losses import check_finite
from toolkit.training.ranks import Ranks
from toolkit.training.state import TrainState
from toolkit.training.stop import StopFlag


class Hook(Protocol):
    """Something that happens after a step: logging, sampling, validation, saving."""

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        """Called after every update; `loss` stays on the device."""
        ...


def train(
    state: TrainState,
    batches: Iterator[tuple[Position, Batch]],
    losses_of: Callable[[Batch, int], Iterator[Tensor]],
    total: int,
    rate: Callable[[int], float],
    hooks: Sequence[Hook],
    context: Context,
    stop: StopFlag,
    accumulate: int = 1,
    max_grad_norm: float | None = 1.0,
) -> None:
    """Update until `total` steps are done or `stop` is requested.

    `losses_of(batch, step)` gives the losses of a batch one after another, each the mean over its samples; their sum is
    minimized. Each is differentiated before the next is asked for, so a step can change the model in between, and
    holds the activations of one prediction only. `rate(step)` multiplies each group's learning rate. One step averages
    over all samples of `accumulate` batches of all ranks, so it equals one batch of their size.
    """
    ranks = Ranks(context, stop)
    is_summed = context.world > 1 and is_shared(state.params[0])  # a mean is taken over ranks, whatever they have
    base_rates = [group.setdefault("initial_lr", group["lr"]) for group in state.optimizer.param_groups]
    while state.step < total and not ranks.stopped:
        group = [next(batches) for _ in range(accumulate)]
        num_samples = sum(batch.num_samples for _, batch in group)
        for options, base in zip(state.optimizer.param_groups, base_rates, strict=True):
            if base is not None:  # Adafactor may find its own
                options["lr"] = base * rate(state.step)

        parts: list[Tensor] = []
        for _, batch in group:
            for part in losses_in(context, losses_of(batch, state.step)):
                share = part * (batch.num_samples / max(num_samples, 1))
                scaled = state.scaler.scale(share) if state.scaler else share
                (scaled * num_samples if is_summed else scaled).backward()
                parts.append(share.detach())
        own = torch.stack(parts).sum() if len(parts) > 1 else parts[0]
        loss = ranks.average(state.optimizer.param_groups, own, num_samples)
        if context.device.type == "cpu" and not state.scaler:
            check_finite(state.step + 1, float(loss))  # a GPU would have to wait for it: LossReader reads it later

        state.is_whole = False
        update(state, max_grad_norm)
        state.step += 1
        state.position = group[-1][0]
        state.is_whole = True
        for hook in hooks:
            hook.after_step(state, loss)


def losses_in(context: Context, losses: Iterator[Tensor]) -> Iterator[Tensor]:
    """The losses, computed in the context's precision; what is done with them is not."""
    while True:
        with context.autocast():
            part = next(losses, None)
        if part is None:
            return
        yield part


def update(state: TrainState, max_grad_norm: float | None) -> None:
    """Clip, step, clear; take the result into the average."""
    params = state.params
    if state.scaler:
        state.scaler.unscale_(state.optimizer)
    if max_grad_norm:
        torch.nn.utils.clip_grad_norm_(params, max_grad_norm)
    if state.scaler:
        state.scaler.step(state.optimizer)
        state.scaler.update()
    else:
        state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema:
        state.ema.update(params)
