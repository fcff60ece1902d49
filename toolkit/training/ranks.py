"""What the ranks of a run add up in a step: gradients, losses, samples, and whether one was asked to stop.

All of it is one all-reduce of one flat tensor, of a few for very many weights. N ranks with batch size b take the steps
of one with batch size N * b.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from toolkit.context import Context
from toolkit.networks.shared import is_shared, own_part
from toolkit.training.state import TrainState
from toolkit.training.stop import StopFlag

NUM_EXTRAS = 3
"""Numbers that travel with the gradients: loss, samples, requests to stop."""
BUCKET = 2**26
"""Gradients are sent so many at a time, or a whole model's would be in memory twice."""


class Ranks:
    """The ranks of a run; alone, each of these calls gives what it was given."""

    def __init__(self, context: Context, stop: StopFlag) -> None:
        self._context, self._stop = context, stop
        self._requests: list[Tensor] = []

    @property
    def stopped(self) -> bool:
        """Whether to stop before the next step: the same for all ranks, a step or two after one of them was asked."""
        if self._context.world == 1:
            return self._stop.requested
        # a GPU would have to be waited for to know that of the last step
        known = self._requests[:-1] if self._context.device.type == "cuda" else self._requests
        self._stop.requested |= bool(known) and float(known[-1]) > 0
        return bool(known) and float(known[-1]) > 0

    @torch.no_grad()
    def average(self, groups: Sequence[dict[str, Any]], loss: Tensor, num_samples: int) -> Tensor:
        """Replace the gradients, means over this rank's samples, by means over all; returns that of the loss.

        `groups` are those of the optimizer. A group that took part in the step on any rank has a gradient for all of
        its parameters then: what dropout left out on one rank may have one on another.
        """
        context = self._context
        if context.world == 1:
            return loss
        params = [param for group in groups for param in group["params"]]
        if is_shared(params[0]):
            return self._finish_shared(params, loss, num_samples)
        extras = self._extras(loss, num_samples)
        grads = [_gradient(param) for group in self._taking_part(groups) for param in group["params"]]
        for bucket in in_buckets(grads, BUCKET):
            total = self._add_up(bucket, num_samples, extras)
        self._requests = [*self._requests[-1:], total[2].clone()]
        return total[0] / total[1].clamp(min=1)

    def _add_up(self, grads: Sequence[Tensor], num_samples: int, extras: Tensor) -> Tensor:
        """Average gradients; returns the sum of the extras, which travel with them."""
        flat = torch.cat([extras, *(grad.flatten().float() * num_samples for grad in grads)])
        self._context.add_up(flat)
        # no rank has samples where no file of a batch could be read
        mean = flat[NUM_EXTRAS:] / flat[1].clamp(min=1)
        for grad, values in zip(grads, mean.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(values.view_as(grad))
        return flat[:NUM_EXTRAS]

    def _extras(self, loss: Tensor, num_samples: int) -> Tensor:
        device = self._context.device
        numbers = torch.tensor([num_samples, self._stop.requested], dtype=torch.float32).to(device)
        return torch.cat([(loss.detach().float().to(device) * num_samples)[None], numbers])

    def _finish_shared(self, params: Sequence[Tensor], loss: Tensor, num_samples: int) -> Tensor:
        """The same where the backward pass has averaged sums over samples, as it does for weights that are shared."""
        total = self._extras(loss, num_samples)
        self._context.add_up(total)
        self._requests = [*self._requests[-1:], total[2].clone()]
        for param in params:
            if param.grad is not None:
                own_part(param.grad).mul_(self._context.world / total[1].clamp(min=1))
        return total[0] / total[1].clamp(min=1)

    def _taking_part(self, groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The groups that are trained in this step by any rank; experts take turns, and a text may lack a new word."""
        own = [any(param.grad is not None for param in group["params"]) for group in groups]
        if len(groups) == 1:
            return list(groups)
        counts = torch.tensor(own, dtype=torch.float32, device=self._context.device)
        self._context.add_up(counts)
        return [group for group, count in zip(groups, counts.tolist(), strict=True) if count > 0]


def in_buckets(tensors: Sequence[Tensor], most: int) -> list[list[Tensor]]:
    """The tensors in their order, in lists of about `most` numbers; at least one list."""
    buckets: list[list[Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        if size and size + tensor.numel() > most:
            buckets.append([])
            size = 0
        buckets[-1].append(tensor)
        size += tensor.numel()
    return buckets


def align(state: TrainState, context: Context) -> None:
    """Begin with the weights of the first rank on all of them. ValueError if they are not at the same step."""
    places = context.gather((state.step, tuple(state.position)))
    if len(set(places)) > 1:
        steps = ", ".join(str(step) for step, _ in places)
        raise ValueError(f"the processes of this run are at different steps ({steps}); they must share one folder")
    context.spread([param.data for param in state.params if not is_shared(param)])


def _gradient(param: Tensor) -> Tensor:
    if param.grad is None:
        param.grad = torch.zeros_like(param)
    return param.grad
