"""Kinds of values that several sections share."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema

DTYPES = {
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "fp16",
    "float16": "fp16",
    "half": "fp16",
    "fp32": "fp32",
    "float32": "fp32",
    "float": "fp32",
}


def _short(value: Any) -> Any:
    return DTYPES.get(value.lower(), value) if isinstance(value, str) else value


Dtype = Annotated[
    Literal["bf16", "fp16", "fp32"],
    BeforeValidator(_short),
    WithJsonSchema({"enum": list(DTYPES), "type": "string"}),
]
"""A precision, by any of its names; bf16, fp16 or fp32 after validation."""
