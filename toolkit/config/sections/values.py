"""Kinds of values that several sections share."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

DTYPES = {
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "fp16",
    "float16": "fp16",
    "half": "fp16",
    "fp32": "fp32",
    "float32": "fp32",
    "float": "fp32",
    "single": "fp32",
}


def _short(value: Any) -> Any:
    return DTYPES.get(value.lower(), value) if isinstance(value, str) else value


Dtype = Annotated[
    Literal["bf16", "fp16", "fp32"],
    BeforeValidator(_short),
    WithJsonSchema({"enum": list(DTYPES), "type": "string"}),
]
"""A precision, by any of its names; bf16, fp16 or fp32 after validation."""


def _check_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError(f"must be auto, cpu, mps, cuda or cuda:N, not '{value}'")
    return value


Device = Annotated[str, AfterValidator(_check_device)]
"""Where a process computes."""
