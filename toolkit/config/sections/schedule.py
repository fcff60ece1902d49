"""`train.lr_scheduler` and its options; toolkit/training/schedules.py does the arithmetic."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from toolkit.config.names import suggestion

LrSchedule = Literal[
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_warmup",
    "cosine_with_restarts",
    "polynomial",
    "step",
]

SHARED = ("num_warmup_steps", "eta_min", "lr_end", "total_iters", "num_training_steps", "max_iterations", "T_max")
OWN: dict[str, tuple[str, ...]] = {
    "cosine": ("num_cycles",),
    "cosine_with_warmup": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles", "T_0", "T_mult"),
    "polynomial": ("power",),
    "step": ("step_size", "gamma"),
}
"""Options that only some schedules have."""
AT_LEAST = {"step_size": 1, "T_0": 1, "T_mult": 1, "total_iters": 1, "num_training_steps": 1, "T_max": 1}


def check_params(schedule: str, params: Mapping[str, Any]) -> None:
    """Raise ValidationError, one error per option that the schedule does not have or cannot use."""
    known = (*OWN.get(schedule, ()), *SHARED)
    errors = []
    for key, value in params.items():
        least = AT_LEAST.get(key, 0)
        if key not in known:
            message = f"lr_scheduler {schedule} has no such option{suggestion(key, known)} (known: {', '.join(known)})"
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= least):
            continue
        else:
            message = f"must be a number from {least} on, not {value!r}"
        error = PydanticCustomError("refused", "{message}", {"message": message})
        errors.append(InitErrorDetails(type=error, loc=(key,), input=value))
    if errors:
        raise ValidationError.from_exception_data("lr_scheduler_params", errors)
