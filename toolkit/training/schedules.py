"""The learning rate over time, a pure function of the step: a resume needs nothing else.

The loop sets lr = base lr * factor(step) before update `step`, the first being 0. In the formulas of the shapes, n is
the number of updates after the warm-up, s counts them from 0, and p = s / n. With the warm-up of w updates and the
floor f = eta_min / base lr, factor = (step + 1) / (w + 1) while step < w, then f + (1 - f) * shape.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from math import cos, pi
from typing import Any

Schedule = Callable[[int], float]


def constant(s: int, n: int) -> float:
    """1."""
    return 1.0


def linear(s: int, n: int) -> float:
    """1 - p."""
    return 1 - s / n


def cosine(s: int, n: int, num_cycles: float = 0.5) -> float:
    """(1 + cos(2 pi num_cycles p)) / 2; the half wave 0.5 goes down once."""
    return (1 + cos(2 * pi * num_cycles * s / n)) / 2


def cosine_with_restarts(s: int, n: int, num_cycles: int = 3, t_0: int | None = None, t_mult: float = 1) -> float:
    """(1 + cos(pi q)) / 2, q from 0 to 1 in each of `num_cycles` equal cycles (Loshchilov and Hutter, 2017).

    With `t_0`, the first cycle has that many updates and each further one `t_mult` times as many.
    """
    if s >= n:
        return 0.0
    if t_0 is None:
        # In whole numbers, because 10 % (10 / 3) is not 0.
        return (1 + cos(pi * ((s * num_cycles) % n) / n)) / 2
    inside, length = float(s % t_0 if t_mult == 1 else s), float(t_0)
    while inside >= length:
        inside, length = inside - length, length * t_mult
    return (1 + cos(pi * inside / length)) / 2


def polynomial(s: int, n: int, power: float = 1.0) -> float:
    """(1 - p) ** power."""
    return (1 - s / n) ** power


def step_decay(s: int, n: int, step_size: int | None = None, gamma: float = 0.1) -> float:
    """gamma ** floor(s / step_size); without a size, two drops cut the run in three."""
    return gamma ** (s // (step_size or max(n // 3, 1)))


SHAPES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "constant_with_warmup": constant,
    "cosine": cosine,
    "cosine_with_warmup": cosine,
    "cosine_with_restarts": cosine_with_restarts,
    "linear": linear,
    "polynomial": polynomial,
    "step": step_decay,
}
# torch, transformers and diffusers spell these differently; users write any of them.
_ALIASES = {
    "T_0": "t_0",
    "T_mult": "t_mult",
    "lr_end": "eta_min",
    "T_max": "total",
    "total_iters": "total",
    "num_training_steps": "total",
    "max_iterations": "total",
}


def schedule(name: str, total_steps: int, params: Mapping[str, Any] | None = None, lr: float = 1.0) -> Schedule:
    """Return the factor by which update `step` scales the base learning rate `lr`.

    Every schedule takes `num_warmup_steps` (for the names with warm-up a tenth of the run, at most 1000; else 0),
    `eta_min` (the learning rate at which the decay ends) and another length `total_iters`. ValueError when a name is
    unknown or a value makes no sense.
    """
    kind = name.lower()
    if kind not in SHAPES:
        raise ValueError(f"no schedule is named {name!r}{_nearest(kind, SHAPES)}; known: {', '.join(SHAPES)}")
    shape = SHAPES[kind]
    own = {_ALIASES.get(key, key): value for key, value in (params or {}).items() if value is not None}
    total = _count(own.pop("total", total_steps), "total_iters")
    warmup = _count(own.pop("num_warmup_steps", min(1000, total // 10) if "warmup" in kind else 0), "num_warmup_steps")
    floor = own.pop("eta_min", 0.0)
    if not isinstance(floor, (int, float)) or floor < 0:
        raise ValueError(f"lr_scheduler_params.eta_min must be a learning rate, not {floor!r}")
    _check(kind, shape, own)
    length, lowest = max(total - warmup, 1), floor / lr

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return lowest + (1 - lowest) * shape(min(step - warmup, length), length, **own)

    return factor


def _check(kind: str, shape: Callable[..., float], own: Mapping[str, Any]) -> None:
    """Refuse parameters that the shape does not have or cannot use."""
    known = list(inspect.signature(shape).parameters)[2:]
    for key, value in own.items():
        if key not in known:
            choices = ", ".join([*known, "num_warmup_steps", "eta_min", "total_iters"])
            raise ValueError(f"lr_scheduler {kind} has no parameter {key!r}{_nearest(key, known)}; it takes {choices}")
        if key in ("t_0", "step_size") or (key == "num_cycles" and shape is cosine_with_restarts):
            _count(value, key, least=1)
        elif not isinstance(value, (int, float)) or isinstance(value, bool) or value < (1 if key == "t_mult" else 0):
            raise ValueError(f"lr_scheduler {kind}: {key} is {value!r}, which is no number of a sensible size")


def _count(value: Any, key: str, least: int = 0) -> int:
    """Return a whole number of steps, also when YAML made 3e2 a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < least:
        raise ValueError(f"lr_scheduler_params.{key} must be a whole number from {least} on, not {value!r}")
    return int(value)


def _nearest(word: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, if one is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
